use std::collections::BTreeMap;
use std::ops::Range;

/// Most entries of an archive.
const MAX_ENTRIES: u64 = 1_000_000;
/// The longest comment that a zip may end with.
const MAX_COMMENT: usize = 0xffff;

/// The entries of a zip: where the bytes of each are. PyTorch compresses nothing, so a file need not be unpacked, and
/// one that is compressed is not PyTorch's.
///
/// Layout: PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5.3 (zip64).
pub(super) fn entries(file: &[u8]) -> Result<BTreeMap<&str, Range<usize>>, String> {
    let directory = directory(file)?;
    let mut found = BTreeMap::new();
    let mut at = directory.start;
    for _ in 0..directory.entries {
        let (name, range, next) = entry(file, at)?;
        if found.insert(name, range).is_some() {
            return Err(format!("its entry `{name}` is there twice"));
        }
        at = next;
    }
    let mut order: Vec<_> = found.iter().filter(|(_, range)| !range.is_empty()).collect();
    order.sort_by_key(|(_, range)| range.start);
    match order.windows(2).find(|pair| pair[0].1.end > pair[1].1.start) {
        Some(pair) => Err(format!("its entries `{}` and `{}` overlap", pair[0].0, pair[1].0)),
        None => Ok(found),
    }
}

/// Where the list of entries starts, and how long it is.
struct Directory {
    start: usize,
    entries: u64,
}

fn directory(file: &[u8]) -> Result<Directory, String> {
    let from = file.len().saturating_sub(MAX_COMMENT + 22);
    let is_end = |at: &usize| {
        let comment = number(file, at + 20, 2);
        file[*at..].starts_with(b"PK\x05\x06") && comment == Some((file.len() - at - 22) as u64)
    };
    let end = (from..file.len().saturating_sub(21)).rev().find(is_end).ok_or_else(cut)?;
    let (mut entries, mut start) = (need(file, end + 10, 2)?, need(file, end + 16, 4)?);
    if entries == 0xffff || start == 0xffff_ffff {
        let locator =
            end.checked_sub(20).filter(|&at| file[at..].starts_with(b"PK\x06\x07")).ok_or_else(cut)?;
        let end = index(need(file, locator + 8, 8)?)?;
        if !file.get(end..).is_some_and(|rest| rest.starts_with(b"PK\x06\x06")) {
            return Err(cut());
        }
        (entries, start) = (need(file, end + 32, 8)?, need(file, end + 48, 8)?);
    }
    if entries > MAX_ENTRIES {
        return Err(format!("its archive has {entries} entries; the most are {MAX_ENTRIES}"));
    }
    Ok(Directory { start: index(start)?, entries })
}

/// An entry of the list: its name, where its bytes are, and where the next one is listed.
fn entry(file: &[u8], at: usize) -> Result<(&str, Range<usize>, usize), String> {
    if !file.get(at..).is_some_and(|rest| rest.starts_with(b"PK\x01\x02")) {
        return Err(cut());
    }
    let [flags, method] = [need(file, at + 8, 2)?, need(file, at + 10, 2)?];
    let lengths = [28, 30, 32].map(|offset| number(file, at + offset, 2).unwrap_or_default() as usize);
    let [name_length, extra_length, comment_length] = lengths;
    let name = file.get(at + 46..at + 46 + name_length).ok_or_else(cut)?;
    let name = std::str::from_utf8(name).map_err(|_| "the name of an entry is not UTF-8".to_owned())?;
    let extra = at + 46 + name_length;
    let mut sizes = [need(file, at + 24, 4)?, need(file, at + 20, 4)?, need(file, at + 42, 4)?];
    widen(file.get(extra..extra + extra_length).ok_or_else(cut)?, &mut sizes)?;
    let [size, stored, header] = sizes;
    if flags & 1 != 0 {
        return Err(format!("its entry `{name}` is encrypted"));
    }
    if method != 0 || size != stored {
        return Err(format!(
            "its entry `{name}` is compressed, which PyTorch never does; save it with torch.save"
        ));
    }
    let header = index(header)?;
    if !file.get(header..).is_some_and(|rest| rest.starts_with(b"PK\x03\x04")) {
        return Err(cut());
    }
    let skipped = need(file, header + 26, 2)? + need(file, header + 28, 2)? + 30;
    let start = header.checked_add(index(skipped)?).ok_or_else(cut)?;
    let end = start.checked_add(index(size)?).filter(|&end| end <= file.len()).ok_or_else(cut)?;
    Ok((name, start..end, extra + extra_length + comment_length))
}

/// Replaces the numbers that did not fit into 32 bits by those of the zip64 field.
fn widen(mut extra: &[u8], sizes: &mut [u64; 3]) -> Result<(), String> {
    while let (Some(id), Some(length)) = (number(extra, 0, 2), number(extra, 2, 2)) {
        let field = extra.get(4..4 + length as usize).ok_or_else(cut)?;
        if id == 1 {
            let mut at = 0;
            for size in sizes.iter_mut().filter(|size| **size == 0xffff_ffff) {
                *size = need(field, at, 8)?;
                at += 8;
            }
            return Ok(());
        }
        extra = &extra[4 + length as usize..];
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn need(bytes: &[u8], at: usize, length: usize) -> Result<u64, String> {
    number(bytes, at, length).ok_or_else(cut)
}

fn index(number: u64) -> Result<usize, String> {
    usize::try_from(number).map_err(|_| cut())
}

fn cut() -> String {
    "its archive is damaged or cut off; download it again".to_owned()
}
