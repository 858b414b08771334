//! Times the machine on small programs, or runs a file: `cargo run --release --example bench [FILE]`.

// An example measures and reads files; the crate itself stays pure.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;
use std::time::Instant;

use rads_compile::{Sources, compile};
use rads_vm::{Limits, Natives, Step, Vm};

struct Text(String);

impl Sources for Text {
    fn read(&self, _: &str) -> Result<String, String> {
        Ok(self.0.clone())
    }
}

const PROGRAMS: &[(&str, &str)] = &[
    (
        "fib(30)",
        "blast fib(n) { if (n < 2) { return n; } return fib(n - 1) + fib(n - 2); } blast main() { echo(fib(30)); }",
    ),
    ("loop × 10M", "blast main() { turbo sum = 0; cruise (i in 0..10000000) { sum = sum + i; } echo(sum); }"),
    (
        "while × 10M",
        "blast main() { turbo i = 0; turbo sum = 0; while (i < 10000000) { sum = sum + i; i = i + 1; } echo(sum); }",
    ),
    ("floats × 10M", "blast main() { turbo x = 0.0; cruise (i in 0..10000000) { x = x * 0.5 + i; } echo(x); }"),
    ("append × 1M", "blast main() { turbo s = \"\"; cruise (i in 0..1000000) { s = s + \"ab\"; } echo(s.length); }"),
    (
        "sort 1M ints",
        "blast main() { turbo a = []; turbo x = 1; cruise (i in 0..1000000) { x = (x * 1103515245 + 12345) % 2147483648; a.push(x); } a.sort(); echo(a[500000]); }",
    ),
    (
        "sort 100k by blast",
        "blast main() { turbo a = []; turbo x = 1; cruise (i in 0..100000) { x = (x * 1103515245 + 12345) % 2147483648; a.push(x); } a.sort(blast (p, q) { return p - q; }); echo(a[50000]); }",
    ),
    (
        "sieve 2M",
        "blast main() { turbo n = 2000000; turbo f = array.make(n, true); turbo c = 0; cruise (i in 2..n) { if (f[i]) { c += 1; turbo j = i * 2; while (j < n) { f[j] = false; j += i; } } } echo(c); }",
    ),
    (
        "structs × 3M",
        "struct P { i32 x; i32 y; } blast main() { turbo p = P { x: 0, y: 1 }; cruise (i in 0..3000000) { p.x = p.x + p.y; } echo(p.x); }",
    ),
    (
        "objects × 1M",
        "blast main() { turbo last = null; cruise (i in 0..1000000) { last = {id: i, next: null}; } echo(last.id); }",
    ),
    (
        "closures × 3M",
        "blast main() { turbo n = 0; turbo f = blast (d) { n = n + d; }; cruise (i in 0..3000000) { f(1); } echo(n); }",
    ),
    (
        "map filter reduce 300k",
        "blast main() { turbo a = array.range(300000); echo(a.map(blast (x) { return x * 2; }).filter(blast (x) { return x % 3 == 0; }).reduce(blast (s, x) { return s + x; }, 0)); }",
    ),
    (
        "dictionary 300k",
        "blast main() { turbo d = {}; cruise (i in 0..300000) { d[\"k\" + i % 5000] = i; } echo(d.length()); }",
    ),
    (
        "json 20k objects",
        "blast main() { turbo a = []; cruise (i in 0..20000) { a.push({id: i, name: \"n\" + i, on: true}); } turbo s = json.stringify(a); echo(json.parse(s).length); }",
    ),
];

fn time(name: &str, source: &str, natives: &Arc<Natives>) {
    let started = Instant::now();
    let compiled = compile(&Text(source.to_owned()), "bench.rads", natives);
    let compiling = started.elapsed();
    if !compiled.diagnostics.is_empty() {
        print!("{}", compiled.render(false));
    }
    let Some(program) = compiled.program else { return };
    if std::env::var("RADS_DISASSEMBLE").is_ok() {
        print!("{}", program.disassemble());
    }
    let started = Instant::now();
    let mut vm = Vm::new(Arc::new(program), natives.clone(), Limits { memory: 2 << 30, ..Limits::default() });
    vm.start();
    let mut output = String::new();
    loop {
        match vm.run(100_000_000) {
            Step::Echo { text } => output.push_str(&text),
            Step::Finished { outcome: Ok(_), .. } => break,
            Step::Finished { outcome: Err(uncaught), .. } => {
                println!("{uncaught}");
                break;
            }
            Step::Yielded => {}
            other => {
                println!("{other:?}");
                break;
            }
        }
    }
    let ms = started.elapsed().as_secs_f64() * 1e3;
    println!(
        "{name:24} {ms:8.1} ms   (compiled in {:.2} ms, {} KiB)   {}",
        compiling.as_secs_f64() * 1e3,
        vm.memory_used() / 1024,
        output.trim_end()
    );
}

fn main() {
    let mut builder = Natives::builder();
    rads_vm::core_natives(&mut builder);
    let natives = Arc::new(builder.build());
    match std::env::args().nth(1) {
        Some(path) => {
            let source = std::fs::read_to_string(&path).expect("the file can be read");
            time(&path, &source, &natives);
        }
        None => {
            for (name, source) in PROGRAMS {
                time(name, source, &natives);
            }
        }
    }
}
