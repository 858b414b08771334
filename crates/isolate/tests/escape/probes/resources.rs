//! More than the star's share. The stars of this suite have half a core, 96 MB and 48 processes.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Attempt, Row, done, if_so};

pub(super) const PROBES: &[Row] = &[
    ("more_processes", || {
        let mut children = Vec::new();
        let outcome = loop {
            if children.len() == 100 {
                break Ok(());
            }
            match Command::new("sleep").arg("30").stdout(Stdio::null()).spawn() {
                Ok(child) => children.push(child),
                Err(error) => break Err(format!("{error} after {}", children.len())),
            }
        };
        for mut child in children {
            let _ = child.kill();
            let _ = child.wait();
        }
        outcome
    }),
    ("more_threads", || {
        let (stop, wait) = (std::sync::Arc::new(std::sync::Barrier::new(1)), Duration::from_millis(500));
        let mut threads = Vec::new();
        let outcome = loop {
            if threads.len() == 100 {
                break Ok(());
            }
            let stop = std::sync::Arc::clone(&stop);
            let body = move || {
                std::thread::sleep(wait);
                drop(stop);
            };
            match std::thread::Builder::new().stack_size(64 << 10).spawn(body) {
                Ok(thread) => threads.push(thread),
                Err(error) => break Err(format!("{error} after {}", threads.len())),
            }
        };
        threads.into_iter().for_each(|thread| drop(thread.join()));
        outcome
    }),
    ("more_memory", || {
        let mut memory = vec![0u8; 160 << 20];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        if_so(std::hint::black_box(&memory)[4096] == 1, "the memory forgets")
    }),
    ("more_shared_memory", || fill("/dev/shm/escape-probe")),
    ("more_temporary_files", || fill("/tmp/escape-probe")),
    ("more_processor_time", || {
        let used = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
        };
        let (begun, before) = (Instant::now(), used());
        while begun.elapsed() < Duration::from_secs(2) {
            std::hint::black_box((0..1000).fold(0u64, |sum, n| sum ^ n));
        }
        let share = (used() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        // What an idle star has saved up it may use at first; a full core it never has.
        if_so(share > 0.75, &format!("{:.0} % of a core", share * 100.0))
    }),
];

/// More than the star's memory, of files in memory.
fn fill(path: &str) -> Attempt {
    // So much at once that, of all in the star, this process is the one that the kernel ends for it.
    let much = vec![1u8; 24 << 20];
    // Without a name it goes with this process, whose end the attempt may be.
    let file = fs::File::create(path).and_then(|file| fs::remove_file(path).map(|()| file));
    done(file.and_then(|mut file| (0..7).try_for_each(|_| file.write_all(&much))))
}
