use std::ops::ControlFlow;

use memchr::memmem::Finder;

use crate::bounds;
use crate::error::within;
use crate::{Binary, Source, SymbolError};

impl<S: Source> Binary<S> {
    /// Whether each of these strings is in the part of the file that becomes read-only memory: constants of a library
    /// that was linked in and stripped. An empty marker is in no file. Stops when all are found.
    pub fn contains(&self, markers: &[&[u8]]) -> Result<Vec<bool>, SymbolError> {
        let finders: Vec<Finder<'_>> = markers.iter().map(Finder::new).collect();
        let mut found = vec![false; markers.len()];
        let longest = markers.iter().map(|marker| marker.len()).max().unwrap_or(0);
        let overlap = longest.saturating_sub(1) as u64;
        let mut scanned = 0u64;
        for segment in self.loaded().filter(|segment| !segment.is_writable()) {
            scanned = scanned.saturating_add(segment.size);
            within("bytes of read-only data", scanned, bounds::SCAN)?;
            let range = self.segment_range(segment)?;
            self.bytes.pieces(range, 1, overlap, &mut |_, piece| {
                let mut is_missing = false;
                for (finder, found) in finders.iter().zip(&mut found) {
                    *found = *found || !finder.needle().is_empty() && finder.find(piece).is_some();
                    is_missing |= !*found;
                }
                Ok(if is_missing {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                })
            })?;
        }
        Ok(found)
    }
}
