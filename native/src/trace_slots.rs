//! Traces to dense slots: the index of tail sampling, asked and filled by whole columns.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow_array::types::{Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrowPrimitiveType, Int64Array, PrimitiveArray};
use arrow_data::ArrayData;
use arrow_pyarrow::PyArrowType;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::interchange::array_to_python;

/// Both words of a trace id, and a number for its tenant.
type Key = (u64, u64, u32);

/// Where a key is not known.
const NOWHERE: i64 = -1;

/// A multiplication to 128 bits per word. Trace ids come from outside, so the seeds are secret: ids that would all meet
/// in one place of the table cannot be made up beforehand.
#[derive(Clone)]
struct Seeds(u64, u64);

impl Seeds {
    fn new() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        Self(random(), random() | 1)
    }
}

impl BuildHasher for Seeds {
    type Hasher = Folded;

    #[inline]
    fn build_hasher(&self) -> Folded {
        Folded {
            state: self.0,
            factor: self.1,
        }
    }
}

struct Folded {
    state: u64,
    factor: u64,
}

impl Hasher for Folded {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        self.state = (product as u64) ^ ((product >> 64) as u64).rotate_left(23);
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }
}

struct Slots {
    taken: HashMap<Key, u32, Seeds>,
    /// Slots below `high` that nobody has; the last one goes first.
    free: Vec<u32>,
    high: u32,
}

impl Slots {
    fn find(&self, keys: &Keys) -> Vec<i64> {
        let slot = |key: Key| {
            self.taken
                .get(&key)
                .map_or(NOWHERE, |slot| i64::from(*slot))
        };
        keys.iter().map(slot).collect()
    }

    fn admit(&mut self, keys: &Keys) -> Result<Vec<i64>, &'static str> {
        let mut slots = Vec::with_capacity(keys.high.len());
        for key in keys.iter() {
            let slot = match self.taken.entry(key) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    let slot = match self.free.pop() {
                        Some(slot) => slot,
                        None => {
                            let next = self.high;
                            self.high = next.checked_add(1).ok_or("more than 2**32 traces")?;
                            next
                        }
                    };
                    *entry.insert(slot)
                }
            };
            slots.push(i64::from(slot));
        }
        Ok(slots)
    }

    fn remove(&mut self, keys: &Keys) -> Vec<i64> {
        let mut slots = Vec::with_capacity(keys.high.len());
        for key in keys.iter() {
            slots.push(match self.taken.remove(&key) {
                Some(slot) => {
                    self.free.push(slot);
                    i64::from(slot)
                }
                None => NOWHERE,
            });
        }
        if self.taken.is_empty() {
            self.free.clear();
            self.high = 0;
        }
        slots
    }
}

/// Distinct traces; each has a slot below `high`, which is free again when the trace is removed.
#[pyclass(frozen, module = "telflow._native")]
struct TraceSlots(Mutex<Slots>);

impl TraceSlots {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl TraceSlots {
    #[new]
    fn new() -> Self {
        Self(Mutex::new(Slots {
            taken: HashMap::with_hasher(Seeds::new()),
            free: Vec::new(),
            high: 0,
        }))
    }

    fn __len__(&self) -> usize {
        self.slots().taken.len()
    }

    /// All slots are below.
    #[getter]
    fn high(&self) -> u32 {
        self.slots().high
    }

    /// The slot of each row's trace, -1 where it is not known.
    fn find<'py>(
        &self,
        high: PyArrowType<ArrayData>,
        low: PyArrowType<ArrayData>,
        tenant: PyArrowType<ArrayData>,
        int64: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keys = Keys::new(high, low, tenant)?;
        let slots = int64.py().detach(|| self.slots().find(&keys));
        to_python(slots, int64)
    }

    /// The slot of each row's trace; new traces get one, in the order of the rows.
    fn admit<'py>(
        &self,
        high: PyArrowType<ArrayData>,
        low: PyArrowType<ArrayData>,
        tenant: PyArrowType<ArrayData>,
        int64: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keys = Keys::new(high, low, tenant)?;
        let slots = int64.py().detach(|| self.slots().admit(&keys));
        to_python(slots.map_err(PyValueError::new_err)?, int64)
    }

    /// Forget traces; the slots they had, -1 for those that were not known.
    fn remove<'py>(
        &self,
        high: PyArrowType<ArrayData>,
        low: PyArrowType<ArrayData>,
        tenant: PyArrowType<ArrayData>,
        int64: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keys = Keys::new(high, low, tenant)?;
        let slots = int64.py().detach(|| self.slots().remove(&keys));
        to_python(slots, int64)
    }
}

struct Keys {
    high: PrimitiveArray<UInt64Type>,
    low: PrimitiveArray<UInt64Type>,
    tenant: PrimitiveArray<UInt32Type>,
}

impl Keys {
    fn new(
        high: PyArrowType<ArrayData>,
        low: PyArrowType<ArrayData>,
        tenant: PyArrowType<ArrayData>,
    ) -> PyResult<Self> {
        let keys = Self {
            high: column(high)?,
            low: column(low)?,
            tenant: column(tenant)?,
        };
        if keys.high.len() != keys.low.len() || keys.high.len() != keys.tenant.len() {
            return Err(PyValueError::new_err("expected columns of one length"));
        }
        Ok(keys)
    }

    fn iter(&self) -> impl Iterator<Item = Key> + '_ {
        let words = self.high.values().iter().zip(self.low.values());
        words
            .zip(self.tenant.values())
            .map(|((high, low), tenant)| (*high, *low, *tenant))
    }
}

fn column<T: ArrowPrimitiveType>(data: PyArrowType<ArrayData>) -> PyResult<PrimitiveArray<T>> {
    if data.0.data_type() != &T::DATA_TYPE || data.0.null_count() > 0 {
        return Err(PyValueError::new_err(format!(
            "expected {} without nulls, got {}",
            T::DATA_TYPE,
            data.0.data_type()
        )));
    }
    Ok(PrimitiveArray::from(data.0))
}

fn to_python<'py>(slots: Vec<i64>, int64: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let slots: PrimitiveArray<Int64Type> = Int64Array::from(slots);
    array_to_python(&slots.into_data(), int64)
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<TraceSlots>()
}
