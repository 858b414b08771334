//! First inputs from the golden files of the crates: what a fuzzer would need days to guess.
//!
//! How an input begins is said by its target, in `fuzz/fuzz_targets`.

use std::fs;
use std::path::Path;

const FRAMES: &str = "crates/rnp/tests/golden/frames-1.0.txt";
const CONSENSUS: &str = "crates/consensus/tests/golden/v1.txt";
const LOG: &str = "crates/store/tests/golden/log-v1.txt";
const IMPORTS: &str = "crates/import/tests/cases";
/// Kinds of descriptions in the order of `import::Format::ALL`: how the folders of its cases begin.
const IMPORTED: [&str; 7] = ["docker-run", "compose", "kubernetes", "nomad", "systemd", "procfile", "crontab"];
const STATE: &str = "crates/store/tests/golden/snapshot-v1.txt";

/// Before the payload of a frame: its header.
const FRAME_HEAD_BYTES: usize = 12;
/// Before the payload of a record: a version and a checksum, which the target makes anew.
const RECORD_HEAD_BYTES: usize = 17;

/// The first inputs of a target; none when it knows of none.
pub(super) fn inputs(root: &Path, target: &str) -> Result<Vec<Vec<u8>>, String> {
    let of = |path: &str| lines(root, path);
    Ok(match target {
        // Every limit, in one piece and in small ones.
        "frame" => {
            let frames = of(FRAMES)?;
            let all: Vec<u8> = frames.iter().flat_map(|(_, frame)| frame.clone()).collect();
            let mut inputs: Vec<Vec<u8>> = frames.iter().map(|(_, frame)| with(&[1, 255], frame)).collect();
            inputs.extend([with(&[2, 6], &all), with(&[0, 255], &all)]);
            inputs
        }
        "message" => {
            let frames =
                of(FRAMES)?.into_iter().filter_map(|(_, frame)| Some(with(&[254], frame.get(FRAME_HEAD_BYTES..)?)));
            frames.chain(of(CONSENSUS)?.iter().map(|(_, message)| with(&[255], message))).collect()
        }
        "record" => {
            let payloads = |path: &str| -> Result<Vec<Vec<u8>>, String> {
                let records = of(path)?.into_iter();
                Ok(records.filter_map(|(_, record)| Some(record.get(RECORD_HEAD_BYTES..)?.to_vec())).collect())
            };
            let commands = payloads(LOG)?;
            // Each alone, and after all before it: most are of use only then.
            let mut inputs: Vec<Vec<u8>> = commands.iter().map(|command| with(&[2], &part(command))).collect();
            inputs.push(with(&[2], &commands.iter().flat_map(|command| part(command)).collect::<Vec<u8>>()));
            inputs.extend(of(LOG)?.into_iter().take(3).map(|(_, record)| with(&[0], &record)));
            inputs.extend(payloads(STATE)?.iter().map(|state| with(&[1], state)));
            inputs
        }
        "snapshot" => {
            of(CONSENSUS)?.into_iter().filter(|(kind, _)| kind == "snapshot").map(|(_, bytes)| bytes).collect()
        }
        "import" => imports(root)?,
        _ => Vec::new(),
    })
}

/// The inputs of the importers' cases, each behind the number of its kind.
fn imports(root: &Path) -> Result<Vec<Vec<u8>>, String> {
    let failed = |error: std::io::Error| format!("{IMPORTS}: {error}");
    let mut inputs = Vec::new();
    for folder in fs::read_dir(root.join(IMPORTS)).map_err(failed)? {
        let folder = folder.map_err(failed)?;
        let name = folder.file_name().to_string_lossy().into_owned();
        let Some(kind) = IMPORTED.iter().position(|kind| name.starts_with(kind)) else { continue };
        for file in fs::read_dir(folder.path()).map_err(failed)? {
            let file = file.map_err(failed)?;
            if file.file_name().to_string_lossy().starts_with("in.") {
                let bytes = fs::read(file.path()).map_err(failed)?;
                inputs.push(with(&[u8::try_from(kind).unwrap_or_default()], &bytes));
            }
        }
    }
    inputs.sort();
    Ok(inputs)
}

fn with(head: &[u8], bytes: &[u8]) -> Vec<u8> {
    [head, bytes].concat()
}

/// After its length, in two bytes.
fn part(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    with(&length.to_be_bytes(), bytes)
}

/// Each line's first word, if it has two, and the bytes that its last one is in hexadecimal digits.
fn lines(root: &Path, path: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
    let text = fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
    let read = |(at, line): (usize, &str)| {
        let (name, digits) = line.split_once(' ').unwrap_or(("", line));
        let bytes = bytes(digits).ok_or_else(|| format!("{path}:{}: not in hexadecimal digits", at + 1))?;
        Ok((name.to_owned(), bytes))
    };
    text.lines().enumerate().map(read).collect()
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::root;

    #[test]
    fn golden_files_are_first_inputs() {
        let check = |target: &str, at_least: usize| {
            let inputs = inputs(&root(), target).unwrap();
            assert!(inputs.len() >= at_least, "{target}: {}", inputs.len());
            assert!(inputs.iter().all(|input| (2..=65_536).contains(&input.len())), "{target}");
        };
        for (target, at_least) in
            [("frame", 25), ("message", 35), ("record", 40), ("snapshot", 1), ("import", 15), ("token", 0)]
        {
            check(target, at_least);
        }
        assert_eq!(bytes("00ff"), Some(vec![0, 255]));
        assert_eq!((bytes("0"), bytes("0g")), (None, None));
    }
}
