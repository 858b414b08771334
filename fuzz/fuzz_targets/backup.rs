//! A backup file: the input is the file, or what comes before the hash at its end.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use store::backup::Reader;

static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = if PathBuf::from("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    folder.join(format!("rads-fuzz-backup-{}", std::process::id()))
});

fuzz_target!(|input: &[u8]| {
    let Some((is_sealed, bytes)) = input.split_first() else { return };
    let mut file = bytes.to_vec();
    if is_sealed % 2 == 1 {
        file.splice(0..0, *b"RADSBKP\x01");
        file.push(0xff);
        file.extend(32_u64.to_le_bytes());
        let hash = *blake3::hash(&file).as_bytes();
        file.extend(hash);
    }
    std::fs::write(&*PATH, &file).expect("a file");
    let opened = Reader::open(&PATH);
    std::fs::remove_file(&*PATH).expect("the file");
    let Ok(mut reader) = opened else { return };
    let mut total = 0;
    while let Ok(Some((_, section))) = reader.next_section() {
        total += section.len();
    }
    assert!(total <= file.len(), "sections are longer than the file");
});
