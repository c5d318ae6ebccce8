//! One batch -> several requests, none larger than a limit, each as full as the order of records allows.

use std::collections::HashMap;
use std::ops::Range;

use super::backward::Backward;
use super::groups::{Group, Groups};
use super::input::{Failure, Result};
use super::places::Places;
use super::request::{write, Source};
use crate::wire::varint_len;

/// Bytes of a length-delimited field with a tag of one byte.
fn field(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

/// Sizes of what envelopes hold besides records.
struct Frames<'a, 'b, S> {
    places: &'a Places<'b>,
    source: &'a S,
    resources: HashMap<usize, usize>,
    scopes: HashMap<usize, usize>,
    scratch: Backward,
}

impl<S: Source> Frames<'_, '_, S> {
    fn measure(scratch: &mut Backward, write: impl FnOnce(&mut Backward)) -> usize {
        let mark = scratch.mark();
        write(scratch);
        scratch.mark() - mark
    }

    fn resource(&mut self, row: usize) -> usize {
        *self.resources.entry(row).or_insert_with(|| {
            Self::measure(&mut self.scratch, |out| {
                self.places.resources.write_tail(row, out);
                self.places.resources.write_head(row, out);
            })
        })
    }

    fn scope(&mut self, row: usize) -> usize {
        *self.scopes.entry(row).or_insert_with(|| {
            Self::measure(&mut self.scratch, |out| {
                self.places.scopes.write_tail(row, out);
                self.places.scopes.write_head(row, out);
            })
        })
    }

    /// Bytes of a metric besides its points' message, and of that besides the points; None where there are no metrics.
    fn metric(&mut self, row: usize) -> Option<(usize, usize)> {
        let mut inside = 0;
        let all = Self::measure(&mut self.scratch, |out| {
            let before = out.mark();
            let marks = self.source.write_tail(row, out);
            inside = out.mark() - marks[1].max(before);
            self.source.write_head(row, marks, out);
        });
        if all == 0 {
            return None;
        }
        // `all` is the metric with no points in it: take its own and its data's tag and length away.
        let metric = (0..=all).find(|&content| field(content) == all)?;
        Some((metric - field(inside), inside))
    }
}

/// The sizes of the messages that are still open at the end of a request; those before are complete.
#[derive(Clone, Copy, Default)]
struct Size {
    /// Complete resources.
    closed: usize,
    /// The open resource: its own fields and its complete scopes.
    resource: usize,
    /// The open scope: its own fields, its records or its complete metrics.
    scope: usize,
    /// The open metric: what is outside and inside of its data.
    metric: Option<(usize, usize)>,
}

impl Size {
    fn scope_total(&self) -> usize {
        self.scope
            + self
                .metric
                .map_or(0, |(outside, inside)| field(outside + field(inside)))
    }

    fn resource_total(&self) -> usize {
        self.resource + field(self.scope_total())
    }

    fn total(&self) -> usize {
        self.closed + field(self.resource_total())
    }
}

/// Requests of at most `limit` bytes that together hold all records; the bounds of the records in each.
fn plan<S: Source>(
    order: &Groups,
    sizes: &[usize],
    frames: &mut Frames<'_, '_, S>,
    limit: usize,
) -> Result<Vec<Range<usize>>> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut size = Size::default();
    let mut open: Option<Group> = None;
    for group in &order.groups {
        let frame = (
            frames.resource(group.resource),
            frames.scope(group.scope),
            frames.metric(group.any),
        );
        let alone = Size {
            closed: 0,
            resource: frame.0,
            scope: frame.1,
            metric: frame.2,
        };
        for place in group.begin..group.end {
            let grown = match open {
                None => alone,
                Some(last) if last == *group => size,
                Some(last) if (last.resource, last.scope) == (group.resource, group.scope) => {
                    Size {
                        scope: size.scope_total(),
                        metric: frame.2,
                        ..size
                    }
                }
                Some(last) if last.resource == group.resource => Size {
                    resource: size.resource_total(),
                    ..alone
                }
                .after(size.closed),
                Some(_) => alone.after(size.total()),
            };
            let row = order.row(place);
            size = grown.with(sizes[row]);
            open = Some(*group);
            if size.total() > limit {
                if place > begin {
                    parts.push(begin..place);
                    begin = place;
                    size = alone.with(sizes[row]);
                }
                if size.total() > limit {
                    let name = frames.source.name(row);
                    return Err(Failure::new(format!(
                        "{name} needs {} bytes alone, the limit is {limit}",
                        size.total()
                    )));
                }
            }
        }
    }
    parts.push(begin..sizes.len());
    Ok(parts)
}

impl Size {
    fn after(self, closed: usize) -> Self {
        Self { closed, ..self }
    }

    /// With one more record.
    fn with(mut self, record: usize) -> Self {
        match &mut self.metric {
            Some((_, inside)) => *inside += record,
            None => self.scope += record,
        }
        self
    }
}

/// Records that are written already.
struct Written<'a, S> {
    source: &'a S,
    bytes: &'a [u8],
    /// Where each row's record ends, counted from the end of `bytes`, and its size.
    rows: &'a [(usize, usize)],
}

impl<S: Source> Source for Written<'_, S> {
    fn write(&self, row: usize, out: &mut Backward) {
        let (end, size) = self.rows[row];
        let begin = self.bytes.len() - end;
        out.bytes(&self.bytes[begin..begin + size]);
    }

    fn write_tail(&self, row: usize, out: &mut Backward) -> [usize; 2] {
        self.source.write_tail(row, out)
    }

    fn write_head(&self, row: usize, marks: [usize; 2], out: &mut Backward) {
        self.source.write_head(row, marks, out);
    }

    fn name(&self, row: usize) -> String {
        self.source.name(row)
    }

    fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// Encode into as few requests of at most `limit` bytes as the order of the records allows; at least one.
pub fn split(
    order: &Groups,
    records: usize,
    places: &Places<'_>,
    source: &impl Source,
    limit: usize,
) -> Result<Vec<Vec<u8>>> {
    let mut out = Backward::new(Vec::new(), source.size());
    let mut rows = Vec::with_capacity(records);
    for row in 0..records {
        let mark = out.mark();
        source.write(row, &mut out);
        rows.push((out.mark(), out.mark() - mark));
    }
    let sizes: Vec<usize> = rows.iter().map(|row| row.1).collect();
    let scratch = Backward::new(Vec::new(), 1024);
    let mut frames = Frames {
        places,
        source,
        resources: HashMap::new(),
        scopes: HashMap::new(),
        scratch,
    };
    let parts = plan(order, &sizes, &mut frames, limit)?;
    let written = Written {
        source,
        bytes: out.written(),
        rows: &rows,
    };
    let encode = |part: Range<usize>| {
        let bytes = part
            .clone()
            .map(|place| sizes[order.row(place)])
            .sum::<usize>();
        let mut out = Backward::new(Vec::new(), bytes + 4096);
        write(&order.part(part), order, places, &written, &mut out);
        out.written().to_vec()
    };
    Ok(parts.into_iter().map(encode).collect())
}
