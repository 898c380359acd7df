//! Reads from an eBPF object (ELF) how many instructions its programs have.
//!
//! Only what the one linker writes is read: 64 bits, little-endian. Anything else is an error.

use anyhow::{Context as _, Result, bail};

/// Bytes of one instruction (RFC 9669 section 3).
const INSTRUCTION: usize = 8;
/// A call, and the source register of one of a function of the object instead of a helper (`BPF_PSEUDO_CALL`).
const CALL: u8 = 0x85;
const PSEUDO: u8 = 1;
/// The section of functions that programs call (the loader appends them to each).
const SHARED: &str = ".text";
/// `SHF_EXECINSTR` of the ELF specification.
const EXECUTABLE: u64 = 4;
/// Size of a section header, of a symbol.
const HEADER: usize = 64;
const SYMBOL: usize = 24;
/// `SHT_SYMTAB` and `STT_FUNC`.
const SYMBOL_TABLE: u32 = 2;
const FUNCTION: u8 = 2;

/// A program and its size in instructions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) name: String,
    /// The program itself.
    pub(super) own: usize,
    /// Functions outside of programs, of which it may call some or all; 0 for one that calls none.
    pub(super) shared: usize,
}

/// The programs of an object, by name.
pub(super) fn programs(elf: &[u8]) -> Result<Vec<Program>> {
    let sections = sections(elf)?;
    let executable = |index: usize| sections.get(index).filter(|section| section.flags & EXECUTABLE != 0);
    let shared: usize = sections.iter().filter(|s| s.name == SHARED).map(|s| s.size / INSTRUCTION).sum();
    let mut found = Vec::new();
    for table in sections.iter().filter(|section| section.kind == SYMBOL_TABLE) {
        let names = sections.get(table.link).context("a symbol table without names")?;
        for at in (table.offset..table.offset + table.size).step_by(SYMBOL) {
            let [info] = bytes(elf, at + 4)?;
            let section = executable(u16::from_le_bytes(bytes(elf, at + 6)?).into());
            let Some(section) = section.filter(|s| info & 0xf == FUNCTION && s.name != SHARED) else { continue };
            let own = usize::try_from(u64::from_le_bytes(bytes(elf, at + 16)?))? / INSTRUCTION;
            let name = text(elf, names.offset + index(bytes(elf, at)?)?)?.to_owned();
            if own == 0 {
                bail!("{name} in section {} is empty", section.name);
            }
            let start = section.offset + usize::try_from(u64::from_le_bytes(bytes(elf, at + 8)?))?;
            let code = elf.get(start..start + own * INSTRUCTION).context("the object ends too early")?;
            let calls =
                code.chunks(INSTRUCTION).any(|one| matches!(one, [CALL, registers, ..] if registers >> 4 == PSEUDO));
            found.push(Program { name, own, shared: if calls { shared } else { 0 } });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

struct Section<'a> {
    name: &'a str,
    kind: u32,
    flags: u64,
    offset: usize,
    size: usize,
    link: usize,
}

fn sections(elf: &[u8]) -> Result<Vec<Section<'_>>> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF file");
    }
    let table = usize::try_from(u64::from_le_bytes(bytes(elf, 0x28)?))?;
    let count = usize::from(u16::from_le_bytes(bytes(elf, 0x3c)?));
    let names = table + usize::from(u16::from_le_bytes(bytes(elf, 0x3e)?)) * HEADER;
    let names = usize::try_from(u64::from_le_bytes(bytes(elf, names + 24)?))?;
    let section = |at: usize| {
        Ok(Section {
            name: text(elf, names + index(bytes(elf, at)?)?)?,
            kind: u32::from_le_bytes(bytes(elf, at + 4)?),
            flags: u64::from_le_bytes(bytes(elf, at + 8)?),
            offset: usize::try_from(u64::from_le_bytes(bytes(elf, at + 24)?))?,
            size: usize::try_from(u64::from_le_bytes(bytes(elf, at + 32)?))?,
            link: index(bytes(elf, at + 40)?)?,
        })
    };
    (0..count).map(|number| section(table + number * HEADER)).collect()
}

fn bytes<const N: usize>(elf: &[u8], at: usize) -> Result<[u8; N]> {
    elf.get(at..).and_then(|rest| rest.first_chunk()).copied().context("the object ends too early")
}

fn index(field: [u8; 4]) -> Result<usize> {
    Ok(usize::try_from(u32::from_le_bytes(field))?)
}

fn text(elf: &[u8], at: usize) -> Result<&str> {
    let rest = elf.get(at..).context("a name outside of the object")?;
    let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(name).context("a name is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header, code, names, symbols, section headers: a program of three instructions and a function of two outside of it.
    fn object(calls: bool) -> Vec<u8> {
        let names = b"\0.text\0xdp\0.symtab\0main\0help\0";
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(64, 0);
        // The call of a helper, and perhaps that of the function.
        elf.extend([CALL, 0, 0, 0, 5, 0, 0, 0, CALL, if calls { 0x10 } else { 0 }, 0, 0, 0, 0, 0, 0]);
        elf.resize(64 + 24, 0);
        elf.extend_from_slice(names);
        let symbols = elf.len();
        for (name, info, section, size) in [(19u32, 0x12u8, 2u16, 24u64), (24, 0x12, 1, 16)] {
            elf.extend_from_slice(&name.to_le_bytes());
            elf.extend_from_slice(&[info, 0]);
            elf.extend_from_slice(&section.to_le_bytes());
            elf.extend_from_slice(&[0; 8]);
            elf.extend_from_slice(&size.to_le_bytes());
        }
        let table = elf.len();
        let header = |name: u32, kind: u32, flags: u64, offset: usize, size: u64, link: u32| {
            let mut bytes = [name.to_le_bytes(), kind.to_le_bytes()].concat();
            bytes.extend([flags, 0, offset as u64, size].iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend(link.to_le_bytes());
            bytes.resize(HEADER, 0);
            bytes
        };
        elf.extend(header(0, 3, 0, 64 + 24, names.len() as u64, 0));
        elf.extend(header(1, 1, 6, 0, 16, 0));
        elf.extend(header(7, 1, 6, 64, 24, 0));
        elf.extend(header(11, SYMBOL_TABLE, 0, symbols, 48, 0));
        elf[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        elf[0x3c] = 4;
        elf
    }

    #[test]
    fn a_program_is_counted_and_functions_apart() {
        for (calls, shared) in [(true, 2), (false, 0)] {
            let expected = Program { name: "main".to_owned(), own: 3, shared };
            assert_eq!(programs(&object(calls)).unwrap(), [expected], "{calls}");
        }
    }

    #[test]
    fn what_is_cut_short_or_no_object_is_an_error() {
        let whole = object(true);
        for length in 0..whole.len() - 24 {
            assert!(programs(&whole[..length]).is_err(), "{length} bytes");
        }
        assert!(programs(b"\x7fELF\x01\x01").is_err());
    }
}
