use std::collections::HashMap;

use super::table::{Layout, Table, value};
use crate::bounds;
use crate::error::within;
use crate::source::Window;
use crate::{Binary, Function, Source, SymbolError};

/// Names that are looked for, by the place of the name in the table.
type Places<'a> = HashMap<u64, &'a str>;

impl<S: Source> Binary<S> {
    /// Functions of a Go executable (1.16 and later) with one of these names, such as `crypto/tls.(*Conn).Read`: out of
    /// the symbol table, or out of Go's own table if the symbols were stripped.
    pub fn go_functions(&self, wanted: &[&str]) -> Result<Vec<Function>, SymbolError> {
        let functions = self.functions(wanted)?;
        if !functions.is_empty() {
            return Ok(functions);
        }
        let Some(table) = self.go_table()? else {
            return Ok(functions);
        };
        let places = self.name_places(&table, wanted)?;
        if places.is_empty() {
            return Ok(functions);
        }
        let text = match table.layout {
            Layout::Addresses => 0,
            Layout::Offsets => self.text_start(&table)?,
        };
        self.described(&table, &places, text)
    }

    fn name_places<'a>(
        &self,
        table: &Table,
        wanted: &[&'a str],
    ) -> Result<Places<'a>, SymbolError> {
        let mut places = Places::new();
        self.bytes
            .strings(table.names.clone(), &mut |offset, name| {
                if let Some(wanted) = wanted.iter().find(|wanted| wanted.as_bytes() == name) {
                    places.insert(offset, *wanted);
                    let count = places.len() as u64;
                    within("wanted names in Go's table", count, bounds::NAME_PLACES)?;
                }
                Ok(())
            })?;
        Ok(places)
    }

    /// Goes through the functions' table and the descriptions, both in their order in the file: so no table makes this
    /// read more than the table's own length.
    fn described(
        &self,
        table: &Table,
        places: &Places<'_>,
        text: u64,
    ) -> Result<Vec<Function>, SymbolError> {
        let mut entries = self.bytes.window();
        let mut descriptions = self.bytes.window();
        let mut functions = Vec::new();
        let mut last = 0;
        let mut next = table.start_of(&mut entries, 0)?;
        for index in 0..table.count {
            let start = next;
            next = table.start_of(&mut entries, index.saturating_add(1))?;
            let description = table.description_of(&mut entries, index)?;
            if next < start || description <= last {
                return Err(SymbolError::Malformed("the order of Go's functions"));
            }
            last = description;
            let name = description.saturating_add(table.layout.size());
            let name = u32::from_le_bytes(descriptions.read(name)?);
            let Some(name) = places.get(&u64::from(name)) else {
                continue;
            };
            if start == 0 && table.layout == Layout::Addresses {
                return Err(SymbolError::Unsupported(
                    "a position-independent Go 1.17 executable of another linker than Go's",
                ));
            }
            let address = text
                .checked_add(start)
                .ok_or(SymbolError::Malformed("the address of a Go function"))?;
            functions.push(self.function(name, address, next.saturating_sub(start))?);
            let count = functions.len() as u64;
            within("functions of the wanted names", count, bounds::FUNCTIONS)?;
        }
        Ok(functions)
    }
}

impl Table {
    /// Where the address or offset of entry `index` starts in the file; the entry after the last is the end.
    fn entry(&self, index: u64) -> u64 {
        let size = self.layout.size().saturating_mul(2);
        self.functions
            .start
            .saturating_add(index.saturating_mul(size))
    }

    /// Start of function `index`, or the end of the last one.
    pub(super) fn start_of<S: Source>(
        &self,
        window: &mut Window<'_, S>,
        index: u64,
    ) -> Result<u64, SymbolError> {
        value(window, self.layout, self.entry(index))
    }

    /// Where in the file function `index` is described.
    fn description_of<S: Source>(
        &self,
        window: &mut Window<'_, S>,
        index: u64,
    ) -> Result<u64, SymbolError> {
        let place = self.entry(index).saturating_add(self.layout.size());
        let place = value(window, self.layout, place)?;
        self.functions
            .start
            .checked_add(place)
            .filter(|place| *place < self.functions.end)
            .ok_or(SymbolError::Malformed("the place of a Go function"))
    }
}
