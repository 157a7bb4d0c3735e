//! Archives as clients make them, and archives that nobody means well with.

use std::io::Cursor;
use std::path::PathBuf;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use std::io::Write as _;

use super::*;

/// One entry, written byte by byte so that headers may lie.
#[derive(Clone)]
struct Raw {
    name: Vec<u8>,
    local_name: Option<Vec<u8>>,
    contents: Vec<u8>,
    method: u16,
    flags: u16,
    mode: u32,
    declared: Option<u32>,
}

fn raw(name: impl AsRef<[u8]>, contents: &[u8]) -> Raw {
    Raw {
        name: name.as_ref().to_vec(),
        local_name: None,
        contents: contents.to_vec(),
        method: 0,
        flags: 0,
        mode: 0o100_644,
        declared: None,
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
        crc
    })
}

fn zip_of(entries: &[Raw]) -> Vec<u8> {
    let mut zip = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let offset = zip.len() as u32;
        let size = entry.contents.len() as u32;
        let mut common = Vec::new();
        for part in [20_u16, entry.flags, entry.method, 0, 0x21] {
            common.extend(part.to_le_bytes());
        }
        for part in [crc32(&entry.contents), size, entry.declared.unwrap_or(size)] {
            common.extend(part.to_le_bytes());
        }
        let local = entry.local_name.as_ref().unwrap_or(&entry.name);
        zip.extend(b"PK\x03\x04");
        zip.extend(&common);
        zip.extend((local.len() as u16).to_le_bytes());
        zip.extend(0_u16.to_le_bytes());
        zip.extend(local);
        zip.extend(&entry.contents);
        directory.extend(b"PK\x01\x02");
        directory.extend((3_u16 << 8 | 20).to_le_bytes());
        directory.extend(&common);
        directory.extend((entry.name.len() as u16).to_le_bytes());
        directory.extend([0; 8]);
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(&entry.name);
    }
    let start = zip.len() as u32;
    zip.extend(&directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    for count in [entries.len() as u16; 2] {
        zip.extend(count.to_le_bytes());
    }
    zip.extend((directory.len() as u32).to_le_bytes());
    zip.extend(start.to_le_bytes());
    zip.extend([0, 0]);
    zip
}

struct Tried {
    outcome: Result<Unpacked, UnpackError>,
    folder: PathBuf,
    parent: tempfile::TempDir,
}

fn try_bytes(bytes: &[u8]) -> Tried {
    let parent = tempfile::tempdir().unwrap();
    let mut archive = tempfile::tempfile().unwrap();
    archive.write_all(bytes).unwrap();
    let folder = parent.path().join("inner/app");
    std::fs::create_dir(parent.path().join("inner")).unwrap();
    let outcome = unpack(&mut archive, &folder);
    Tried { outcome, folder, parent }
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    let tried = try_bytes(bytes);
    let error = tried.outcome.expect_err("the archive must be refused").to_string();
    assert!(error.contains(expected), "`{error}` does not say `{expected}`");
    let left: Vec<_> = walkdir::WalkDir::new(tried.parent.path()).min_depth(2).into_iter().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[track_caller]
fn refused_entries(entries: &[Raw], expected: &str) {
    refused(&zip_of(entries), expected);
}

fn deflated(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, contents) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(contents).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn an_honest_archive_is_unpacked_with_modes_of_our_choice() {
    let mut script = raw("bin/run.sh", b"#!/bin/sh\n");
    script.mode = 0o106_777;
    let mut folder = raw("empty/", b"");
    folder.mode = 0o041_777;
    let mut dos = raw("sub/deep/mod.py", b"y = 2\n");
    dos.mode = 0;
    let tried = try_bytes(&zip_of(&[raw("main.py", b"x = 1\n"), script, folder, dos]));
    assert_eq!(tried.outcome.unwrap(), Unpacked { files: 3, bytes: 22 });
    let mode = |name: &str| std::fs::metadata(tried.folder.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(""), mode("main.py"), mode("bin/run.sh")), (0o700, 0o644, 0o755));
    assert_eq!((mode("empty"), mode("bin")), (0o755, 0o755));
    assert_eq!(std::fs::read_to_string(tried.folder.join("sub/deep/mod.py")).unwrap(), "y = 2\n");
}

#[test]
fn archives_of_streaming_clients_are_understood() {
    // Go's archive/zip writes sizes after the data, as this writer does.
    let mut zip = ZipWriter::new_stream(Vec::new());
    zip.start_file("main.py", SimpleFileOptions::default()).unwrap();
    zip.write_all(&b"x = 1\n".repeat(100)).unwrap();
    let bytes = zip.finish().unwrap().into_inner();
    assert_eq!(try_bytes(&bytes).outcome.unwrap(), Unpacked { files: 1, bytes: 600 });
}

#[test]
fn of_a_generated_file_that_is_there_twice_the_first_counts() {
    let entries =
        [raw("requirements.txt", b"torch==2.1\n"), raw("main.py", b""), raw("requirements.txt", b"numpy\n")];
    let tried = try_bytes(&zip_of(&entries));
    assert_eq!(tried.outcome.unwrap().files, 2);
    assert_eq!(std::fs::read_to_string(tried.folder.join("requirements.txt")).unwrap(), "torch==2.1\n");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in [
        "../main.py",
        "a/../../main.py",
        "/etc/cron.d/x",
        "..",
        "./main.py",
        "a//b",
        "a\\..\\b",
        "C:\\x",
        "c:x",
        "a\0b",
        "a\nb",
        "",
        "/",
    ] {
        refused_entries(&[raw(name, b"x")], "its name is not allowed");
    }
    refused_entries(&[raw([0xff, 0xfe], b"x")], "its name is not UTF-8");
    refused_entries(&[raw("a/".repeat(40) + "b", b"x")], "more than 32 components");
    refused_entries(&[raw("a".repeat(300), b"x")], "longer than 255 bytes");
}

#[test]
fn only_regular_files_and_folders_are_taken() {
    for (mode, what) in [
        (0o120_777, "symlink"),
        (0o010_644, "fifo"),
        (0o020_644, "device"),
        (0o060_644, "block"),
        (0o140_644, "socket"),
    ] {
        let mut entry = raw(what, b"/etc/passwd");
        entry.mode = mode;
        refused_entries(&[raw("main.py", b""), entry], "neither a regular file nor a folder");
    }
    let mut folder = raw("sub", b"");
    folder.mode = 0o040_755;
    refused_entries(&[folder], "neither a regular file nor a folder");
    refused_entries(&[Raw { mode: 0, ..raw("sub/", b"hidden") }], "a folder with contents");
}

#[test]
fn a_link_cannot_be_written_through() {
    let mut link = raw("link", b"/tmp");
    link.mode = 0o120_777;
    refused_entries(&[link, raw("link/owned", b"x")], "neither a regular file nor a folder");
}

#[test]
fn one_place_is_taken_once() {
    refused_entries(&[raw("main.py", b"1"), raw("main.py", b"2")], "it is there a second time");
    refused_entries(&[raw("Main.py", b"1"), raw("main.py", b"2")], "only in case");
    refused_entries(&[raw("A/x", b"1"), raw("a/y", b"2")], "only in case");
    refused_entries(&[raw("a", b"1"), raw("a/b", b"2")], "needs a folder where the file `a` is");
    refused_entries(&[raw("a/b", b"1"), raw("a", b"2")], "a folder of that name is there already");
}

#[test]
fn headers_must_agree() {
    let mut entry = raw("main.py", b"x");
    entry.local_name = Some(b"evil.py".to_vec());
    refused_entries(&[entry], "headers are not sound");
    let mut encrypted = raw("main.py", b"x");
    encrypted.flags = 1;
    refused_entries(&[encrypted], "encrypted");
    let mut other = raw("main.py", b"x");
    other.method = 14;
    refused_entries(&[other], "main.py");
}

#[test]
fn contents_must_match_their_checksum() {
    let mut bytes = zip_of(&[raw("main.py", b"honest")]);
    let at = bytes.windows(6).position(|window| window == b"honest").unwrap();
    bytes[at] = b'H';
    refused(&bytes, "contents are not sound");
}

#[test]
fn bombs_end_early() {
    refused(&deflated(&[("zeros", &vec![0; 8 << 20])]), "more than 200 times");
    // The header promises little; what comes out counts.
    let mut bytes = deflated(&[("zeros", &vec![0; 8 << 20])]);
    let size = (8_u32 << 20).to_le_bytes();
    while let Some(at) = bytes.windows(4).position(|window| window == size) {
        bytes[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
    }
    refused(&bytes, "zeros");
}

#[test]
fn too_many_entries_are_refused_before_the_first_is_written() {
    let entries: Vec<_> = (0..=ENTRIES_MAX).map(|i| raw(format!("f{i}"), b"")).collect();
    refused_entries(&entries, "it has 10001 entries, and 10000 are the most");
}

#[test]
fn entries_that_share_bytes_are_refused() {
    // Two directory records point at one local header.
    let bytes = zip_of(&[raw("requirements.txt", b"numpy\n")]);
    let directory = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    let end = bytes.windows(4).position(|window| window == b"PK\x05\x06").unwrap();
    let record = bytes[directory..end].to_vec();
    let mut twice = bytes[..end].to_vec();
    twice.extend(record);
    let size = (twice.len() - directory) as u32;
    twice.extend(b"PK\x05\x06\0\0\0\0\x02\0\x02\0");
    twice.extend(size.to_le_bytes());
    twice.extend((directory as u32).to_le_bytes());
    twice.extend([0, 0]);
    refused(&twice, "shares bytes");
}

#[test]
fn what_is_no_whole_zip_is_refused() {
    let honest = zip_of(&[raw("main.py", b"x")]);
    refused(b"", "it is no zip");
    refused(b"#!/bin/sh\nexit 0\n# padded to be long enough", "it is no zip");
    refused(b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "it is empty");
    refused(&honest[..honest.len() - 5], "does not end with its directory");
    refused(&[honest.clone(), b"trailing".to_vec()].concat(), "does not end with its directory");
    let second = zip_of(&[raw("other.py", b"y")]);
    refused(&[honest.clone(), second].concat(), "its directory is not where its end says");
    refused(&[b"prefix".to_vec(), honest.clone()].concat(), "it is no zip");
    let mut commented = honest;
    let length = commented.len();
    commented[length - 2] = 4;
    commented.extend(b"note");
    refused(&commented, "does not end with its directory");
}
