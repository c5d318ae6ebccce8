//! Which records go into which envelope, in which order.

use std::collections::HashMap;
use std::ops::Range;

use arrow_array::types::UInt32Type;
use arrow_array::RecordBatch;

use super::input::{Failure, Numbers, Result};
use super::places::Places;
use super::request::Source;

/// Records that share resource, scope and, for data points, metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    pub resource: usize,
    pub scope: usize,
    /// Some record of the group: all of them have the metric's identity.
    pub any: usize,
    /// Its records' first and one-past-last place in the order.
    pub begin: usize,
    pub end: usize,
}

/// Records grouped: resources in the order in which they first appear, within them scopes and metrics likewise, within
/// those the records as they stand in the batch.
pub struct Groups {
    pub groups: Vec<Group>,
    /// Row numbers in that order; None when they are in it already.
    order: Option<Vec<u32>>,
}

impl Groups {
    pub fn of(records: &RecordBatch, places: &Places<'_>, source: &impl Source) -> Result<Self> {
        let runs = runs(records, places, source)?;
        // Number the distinct groups of the runs.
        let mut numbers = HashMap::new();
        let mut key = Vec::new();
        let mut found: Vec<(usize, usize)> = Vec::new(); // first run, records
        let mut of_run = Vec::with_capacity(runs.len());
        for (at, run) in runs.iter().enumerate() {
            key.clear();
            key.extend((run.resource as u64).to_le_bytes());
            key.extend((run.scope as u64).to_le_bytes());
            source.describe(run.any, &mut key);
            let next = numbers.len();
            let number = match numbers.get(&key) {
                Some(&number) => number,
                None => {
                    numbers.insert(key.clone(), next);
                    found.push((at, 0));
                    next
                }
            };
            found[number].1 += run.end - run.begin;
            of_run.push(number);
        }
        // Put together what shares a resource and then what shares a scope, by first appearance.
        let mut first_of_resource = HashMap::new();
        let mut first_of_scope = HashMap::new();
        let mut sorted: Vec<_> = found
            .iter()
            .enumerate()
            .map(|(number, &(at, _))| {
                let run = &runs[at];
                let resource = *first_of_resource.entry(run.resource).or_insert(number);
                let scope = *first_of_scope
                    .entry((run.resource, run.scope))
                    .or_insert(number);
                (resource, scope, number)
            })
            .collect();
        sorted.sort_unstable();
        let mut place_of = vec![0; found.len()];
        let mut groups = Vec::with_capacity(found.len());
        let mut begin = 0;
        for &(_, _, number) in &sorted {
            let (at, records) = found[number];
            place_of[number] = groups.len();
            groups.push(Group {
                begin,
                end: begin + records,
                ..runs[at]
            });
            begin += records;
        }
        let in_order = groups.len() == runs.len()
            && of_run.iter().enumerate().all(|(at, &n)| place_of[n] == at);
        let order = (!in_order).then(|| {
            let mut order = vec![0u32; begin];
            let mut next: Vec<usize> = groups.iter().map(|g| g.begin).collect();
            for (run, number) in runs.iter().zip(&of_run) {
                let place = &mut next[place_of[*number]];
                for row in run.begin..run.end {
                    order[*place] = row as u32;
                    *place += 1;
                }
            }
            order
        });
        Ok(Self { groups, order })
    }

    /// Row that stands at a place.
    #[inline(always)]
    pub fn row(&self, place: usize) -> usize {
        match &self.order {
            Some(order) => order[place] as usize,
            None => place,
        }
    }

    /// The part of the groups whose records stand at `places`.
    pub fn part(&self, places: Range<usize>) -> Vec<Group> {
        let first = self.groups.partition_point(|g| g.end <= places.start);
        let inside = self.groups[first..]
            .iter()
            .take_while(|g| g.begin < places.end);
        inside
            .map(|g| Group {
                begin: g.begin.max(places.start),
                end: g.end.min(places.end),
                ..*g
            })
            .collect()
    }
}

/// Stretches of rows that belong together, by row number.
fn runs(records: &RecordBatch, places: &Places<'_>, source: &impl Source) -> Result<Vec<Group>> {
    let resource = Numbers::<UInt32Type>::of(records, "resource")?;
    let scope = Numbers::<UInt32Type>::of(records, "scope")?;
    let mut runs: Vec<Group> = Vec::new();
    for row in 0..records.num_rows() {
        let here = (resource.get(row) as usize, scope.get(row) as usize);
        match runs.last_mut() {
            Some(run) if (run.resource, run.scope) == here && source.same(run.any, row) => {
                run.end = row + 1
            }
            _ => {
                if here.0 >= places.resources.rows || here.1 >= places.scopes.rows {
                    return Err(Failure::new(format!(
                        "record {row}: resource {} or scope {} missing",
                        here.0, here.1
                    )));
                }
                runs.push(Group {
                    resource: here.0,
                    scope: here.1,
                    any: row,
                    begin: row,
                    end: row + 1,
                });
            }
        }
    }
    Ok(runs)
}
