//! Programs of the C compiler, compared with what the binutils say about them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use pilotfish_symbols::{Binary, Machine, SymbolError};
use tempfile::TempDir;

const SOURCE: &str = r#"
#include <stdio.h>
const char *marker = "OpenSSL 3.0.99 of no date";
static __attribute__((noinline)) int hidden(int n) { return n < 0 ? puts("a") : puts("b") + n; }
__attribute__((noinline)) int several(int n) {
    if (n > 10) { puts("more"); return n * 3; }
    for (int i = 0; i < n; i++) if (puts("x") < 0) return hidden(n);
    return n;
}
int main(int argc, char **argv) { return several(argc) + hidden(argc); }
"#;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Compiles the source with the machine's own compiler.
fn compiled(directory: &Path, arguments: &[&str]) -> PathBuf {
    let source = directory.join("source.c");
    fs::write(&source, SOURCE).unwrap();
    let output = directory.join("output");
    let mut all = vec!["-O2", "-fno-inline", "-Wl,--build-id=0xfeedfacecafe"];
    all.extend(arguments);
    all.extend([source.to_str().unwrap(), "-o", output.to_str().unwrap()]);
    run("gcc", &all);
    output
}

/// Address and size as `nm` prints them.
fn listed(file: &Path, name: &str) -> (u64, u64) {
    let listing = run("nm", &["-S", file.to_str().unwrap()]);
    let line = listing
        .lines()
        .find(|line| line.ends_with(&format!(" {name}")))
        .unwrap();
    let mut fields = line
        .split(' ')
        .map(|field| u64::from_str_radix(field, 16).unwrap_or(0));
    (fields.next().unwrap(), fields.next().unwrap())
}

/// Addresses of the return instructions that `objdump` prints.
fn disassembled_returns(file: &Path, name: &str) -> Vec<u64> {
    let only = format!("--disassemble={name}");
    let listing = run(
        "objdump",
        &["-d", "--no-show-raw-insn", &only, file.to_str().unwrap()],
    );
    listing
        .lines()
        .filter_map(|line| line.split_once(":\t"))
        .filter(|(_, instruction)| instruction.starts_with("ret"))
        .map(|(address, _)| u64::from_str_radix(address.trim(), 16).unwrap())
        .collect()
}

#[test]
fn functions_are_where_binutils_see_them() {
    let directory = TempDir::new().unwrap();
    let variants: [&[&str]; 3] = [&["-no-pie"], &["-pie", "-fPIE"], &["-shared", "-fPIC"]];
    for arguments in variants {
        let file = compiled(directory.path(), arguments);
        let binary = Binary::open(File::open(&file).unwrap()).unwrap();
        let contents = fs::read(&file).unwrap();
        let functions = binary
            .functions(&["several", "hidden", "main", "puts"])
            .unwrap();
        assert_eq!(functions.len(), 3, "{functions:?}");
        for function in functions {
            let found = (function.address, function.size);
            assert_eq!(
                found,
                listed(&file, &function.name),
                "{arguments:?} {}",
                function.name
            );
            let distance = function.address - function.offset;
            let returns: Vec<u64> = match binary.returns(&function) {
                Ok(returns) => returns.iter().map(|offset| offset + distance).collect(),
                // A call at the end of a function became a jump.
                Err(SymbolError::LeavesByJump(_)) => continue,
                Err(error) => panic!("{}: {error}", function.name),
            };
            assert_eq!(returns, disassembled_returns(&file, &function.name));
            let probe = binary.entry(&function).unwrap();
            assert!((function.offset..function.offset + function.size).contains(&probe.offset));
            if binary.machine() == Machine::X86_64 {
                assert!(
                    returns
                        .iter()
                        .all(|address| contents[(address - distance) as usize] == 0xc3)
                );
            }
        }
    }
}

#[test]
fn landing_pads_and_no_operations_are_skipped() {
    let directory = TempDir::new().unwrap();
    // The landing pad of 4 bytes comes first.
    let (landing_pad, padding) = if cfg!(target_arch = "x86_64") {
        ("-fcf-protection=branch", 4 + 5)
    } else {
        ("-mbranch-protection=bti", 4 + 5 * 4)
    };
    let file = compiled(
        directory.path(),
        &[landing_pad, "-fpatchable-function-entry=5"],
    );
    let binary = Binary::open(File::open(&file).unwrap()).unwrap();
    let function = &binary.functions(&["several"]).unwrap()[0];
    let probe = binary.entry(function).unwrap();
    assert_eq!(probe.offset, function.offset + padding);
}

#[test]
fn what_is_left_after_stripping() {
    let directory = TempDir::new().unwrap();
    let file = compiled(directory.path(), &["-shared", "-fPIC", "-s"]);
    let binary = Binary::open(File::open(&file).unwrap()).unwrap();
    let functions = binary.functions(&["several", "hidden"]).unwrap();
    let names: Vec<_> = functions
        .iter()
        .map(|function| function.name.as_str())
        .collect();
    assert_eq!(names, ["several"]);
    let needed = binary.needed().unwrap();
    assert!(
        needed.iter().any(|name| name.starts_with("libc.so")),
        "{needed:?}"
    );
    let markers: [&[u8]; 2] = [b"OpenSSL 3.", b"OpenSSL 1.1.1"];
    assert_eq!(binary.contains(&markers).unwrap(), [true, false]);
    assert_eq!(binary.go().unwrap(), None);
}
