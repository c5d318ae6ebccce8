//! Envelopes around records: a whole Export*ServiceRequest.

use super::backward::Backward;
use super::groups::{Group, Groups};
use super::places::Places;

/// The records of one signal.
pub trait Source {
    /// A record, with its tag and length as an element of the list it belongs to.
    fn write(&self, row: usize, out: &mut Backward);

    /// Whether two rows belong to the same metric.
    fn same(&self, _a: usize, _b: usize) -> bool {
        true
    }

    /// Append what tells a row's metric from others.
    fn describe(&self, _row: usize, _out: &mut Vec<u8>) {}

    /// What stands after the points of a row's metric; returns marks for `write_head`.
    fn write_tail(&self, _row: usize, _out: &mut Backward) -> [usize; 2] {
        [0; 2]
    }

    /// What stands before the points of a row's metric, and the lengths.
    fn write_head(&self, _row: usize, _marks: [usize; 2], _out: &mut Backward) {}

    /// What to call a record in an error message.
    fn name(&self, row: usize) -> String;

    /// Bytes that all records may take, roughly.
    fn size(&self) -> usize;
}

/// Write the request that holds `groups`, which are sorted as `Groups` does.
pub fn write(
    groups: &[Group],
    order: &Groups,
    places: &Places<'_>,
    source: &impl Source,
    out: &mut Backward,
) {
    for in_resource in groups.chunk_by(|a, b| a.resource == b.resource).rev() {
        let resource = in_resource[0].resource;
        let mark = out.mark();
        places.resources.write_tail(resource, out);
        for in_scope in in_resource.chunk_by(|a, b| a.scope == b.scope).rev() {
            let scope = in_scope[0].scope;
            let mark = out.mark();
            places.scopes.write_tail(scope, out);
            for group in in_scope.iter().rev() {
                let marks = source.write_tail(group.any, out);
                for place in (group.begin..group.end).rev() {
                    source.write(order.row(place), out);
                }
                source.write_head(group.any, marks, out);
            }
            places.scopes.write_head(scope, out);
            out.close(mark, 0x12);
        }
        places.resources.write_head(resource, out);
        out.close(mark, 0x0a);
    }
}
