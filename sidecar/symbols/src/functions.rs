//! Functions by name, out of the symbol tables.
//!
//! A string table can be as large as the rest of the file, so it is not kept: one pass notes where wanted names start
//! in it, a pass over the symbols compares only those numbers.

use std::collections::HashMap;
use std::ops::ControlFlow;

use object::LittleEndian;
use object::elf::{self, Sym64};

use crate::binary::{LE, Section, entries};
use crate::bounds;
use crate::error::within;
use crate::{Binary, Source, SymbolError};

/// A function, all of it in an executable segment of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name without a symbol version.
    pub name: String,
    /// Its address as linked.
    pub address: u64,
    /// Its place in the file in bytes.
    pub offset: u64,
    /// Its length in bytes. Out of Go's table with the padding after it; 0 if the symbol does not say.
    pub size: u64,
}

/// Names by their offset in a string table.
type Places = HashMap<u64, String>;

impl<S: Source> Binary<S> {
    /// Functions with one of these names, out of both symbol tables, by address. A name can have several functions
    /// (`static` ones of several source files). What is imported only, and what the dynamic linker resolves by
    /// calling it (`IFUNC`), is not among them. Without section headers nothing is found.
    pub fn functions(&self, wanted: &[&str]) -> Result<Vec<Function>, SymbolError> {
        let mut functions = Vec::new();
        for (symbols, strings) in self.symbol_tables()? {
            let mut places = Places::new();
            self.strings(strings, &mut |offset, name| {
                for wanted in wanted {
                    // Linkers let a name share the end of a longer one.
                    if let Some(before) = name.strip_suffix(*wanted).filter(|_| !wanted.is_empty())
                    {
                        note(
                            &mut places,
                            offset.saturating_add(before.len() as u64),
                            wanted,
                        )?;
                    }
                }
                Ok(())
            })?;
            self.add_functions(symbols, &places, &mut functions)?;
        }
        Ok(sorted(functions))
    }

    /// Functions whose whole name is accepted, out of both symbol tables, by address. `accept` is called for
    /// everything that has a name there.
    pub fn functions_matching(
        &self,
        accept: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Vec<Function>, SymbolError> {
        let mut functions = Vec::new();
        for (symbols, strings) in self.symbol_tables()? {
            let mut places = Places::new();
            self.strings(strings, &mut |offset, name| {
                if accept(name) {
                    note(&mut places, offset, name)?;
                }
                Ok(())
            })?;
            self.add_functions(symbols, &places, &mut functions)?;
        }
        Ok(sorted(functions))
    }

    /// Symbol tables with their string tables.
    fn symbol_tables(&self) -> Result<Vec<(&Section, &Section)>, SymbolError> {
        [elf::SHT_DYNSYM, elf::SHT_SYMTAB]
            .into_iter()
            .filter_map(|kind| self.sections.iter().find(|section| section.kind == kind))
            .map(|symbols| {
                self.sections
                    .get(symbols.link as usize)
                    .filter(|strings| strings.kind == elf::SHT_STRTAB)
                    .map(|strings| (symbols, strings))
                    .ok_or(SymbolError::Malformed(
                        "a symbol table without a string table",
                    ))
            })
            .collect()
    }

    /// Shows the names of a string table with their offsets, without symbol versions.
    fn strings(
        &self,
        section: &Section,
        visit: &mut dyn FnMut(u64, &str) -> Result<(), SymbolError>,
    ) -> Result<(), SymbolError> {
        within(
            "bytes of a string table",
            section.size,
            bounds::STRING_TABLE,
        )?;
        let table = self.section_range(section)?;
        self.bytes.strings(table, &mut |offset, name| {
            // `.symtab` has "SSL_read@@OPENSSL_3.0.0"; `.dynsym` keeps versions elsewhere.
            let end = memchr::memchr(b'@', name).unwrap_or(name.len());
            match name.get(..end).map(str::from_utf8) {
                Some(Ok(name)) => visit(offset, name),
                _ => Ok(()),
            }
        })
    }

    /// Adds the functions whose names start at one of `places`.
    fn add_functions(
        &self,
        symbols: &Section,
        places: &Places,
        functions: &mut Vec<Function>,
    ) -> Result<(), SymbolError> {
        if places.is_empty() {
            return Ok(());
        }
        within(
            "bytes of a symbol table",
            symbols.size,
            bounds::SYMBOL_TABLE,
        )?;
        let table = self.section_range(symbols)?;
        let unit = size_of::<Sym64<LittleEndian>>() as u64;
        self.bytes.pieces(table, unit, 0, &mut |_, piece| {
            for symbol in entries::<Sym64<LittleEndian>>(piece) {
                let is_defined = symbol.st_shndx.get(LE) != elf::SHN_UNDEF;
                if symbol.st_info & 0xf != elf::STT_FUNC || !is_defined {
                    continue;
                }
                let Some(name) = places.get(&u64::from(symbol.st_name.get(LE))) else {
                    continue;
                };
                let (address, size) = (symbol.st_value.get(LE), symbol.st_size.get(LE));
                functions.push(self.function(name, address, size)?);
                within(
                    "functions of the wanted names",
                    functions.len() as u64,
                    bounds::FUNCTIONS,
                )?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// A function, if its code is in the file.
    pub(crate) fn function(
        &self,
        name: &str,
        address: u64,
        size: u64,
    ) -> Result<Function, SymbolError> {
        let offset = self
            .code_offset(address, size.max(1))
            .ok_or(SymbolError::Malformed(
                "a function is not in an executable segment",
            ))?;
        self.bytes.range(offset, size)?;
        Ok(Function {
            name: name.to_owned(),
            address,
            offset,
            size,
        })
    }
}

fn note(places: &mut Places, offset: u64, name: &str) -> Result<(), SymbolError> {
    places.insert(offset, name.to_owned());
    within(
        "places of wanted names in a string table",
        places.len() as u64,
        bounds::NAME_PLACES,
    )?;
    Ok(())
}

/// By address and name; what both tables have, once. A size is better than none.
fn sorted(mut functions: Vec<Function>) -> Vec<Function> {
    functions.sort_by(|a, b| {
        (a.address, &a.name)
            .cmp(&(b.address, &b.name))
            .then(b.size.cmp(&a.size))
    });
    functions.dedup_by(|a, b| (a.address, &a.name) == (b.address, &b.name));
    functions
}
