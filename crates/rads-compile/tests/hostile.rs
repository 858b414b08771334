//! Whatever is fed to the compiler and the machine ends in a diagnostic, a value or an error: never in a panic, an
//! exhausted stack or a loop without end.

use std::sync::Arc;

use rads_compile::{Sources, compile};
use rads_vm::{Limits, Natives, Step, Vm};

struct Text(String);

impl Sources for Text {
    fn read(&self, path: &str) -> Result<String, String> {
        if path == "main.rads" { Ok(self.0.clone()) } else { Err("no such file".to_owned()) }
    }
}

fn natives() -> Arc<Natives> {
    let mut builder = Natives::builder();
    rads_vm::core_natives(&mut builder);
    Arc::new(builder.build())
}

/// Compiles and, if that works, runs under small limits; gives how it ended.
fn ends(source: String, natives: &Arc<Natives>) -> String {
    let compiled = compile(&Text(source), "main.rads", natives);
    let Some(program) = compiled.program else {
        assert!(!compiled.diagnostics.is_empty());
        return format!("diagnostic {}", compiled.diagnostics[0].1.code);
    };
    let limits = Limits { memory: 4 << 20, instructions: Some(2_000_000), depth: 500, collect_always: false };
    let mut vm = Vm::new(Arc::new(program), natives.clone(), limits);
    vm.start();
    let mut echoed = 0;
    for _ in 0..10_000 {
        match vm.run(100_000) {
            Step::Finished { outcome: Ok(_), .. } => return "value".to_owned(),
            Step::Finished { outcome: Err(uncaught), .. } => {
                let _ = uncaught.to_string();
                return uncaught.kind.unwrap_or_else(|| "thrown".to_owned());
            }
            Step::Idle => return "idle".to_owned(),
            Step::Echo { text } => echoed += text.len(),
            Step::Yielded | Step::Call { .. } => {}
        }
    }
    panic!("it does not end; {echoed} bytes echoed");
}

#[test]
fn deep_and_long_sources_are_refused_or_run() {
    let natives = natives();
    let n = 50_000;
    let nested = |open: &str, inner: &str, close: &str| format!("{}{inner}{}", open.repeat(n), close.repeat(n));
    for source in [
        format!("echo({});", nested("(", "1", ")")),
        format!("echo({});", nested("[", "1", "]")),
        format!("turbo x = {};", nested("{a: ", "1", "}")),
        format!("echo({}1);", "-".repeat(n)),
        format!("echo(1{});", " + 1".repeat(n)),
        format!("echo(1{});", " ?? 1".repeat(n)),
        format!("turbo a = 1; echo(a{});", ".b".repeat(n)),
        format!("turbo f = 1; f{};", "()".repeat(n)),
        nested("if (1) {", "", "}"),
        nested("blast f() {", "", "}"),
        nested("try {", "", "} finally { }"),
        format!("if (1) {{ }}{}", " else if (1) { }".repeat(n)),
        format!("echo(1 ? {});", nested("1 ? ", "1", " : 1")),
    ] {
        ends(source, &natives);
    }
}

/// Work that grows with the square of these would take minutes, not a second or two.
#[test]
#[expect(clippy::disallowed_types, reason = "the time it takes is what is tested")]
fn many_mistakes_and_many_names_take_no_longer_than_their_text() {
    let natives = natives();
    let n = 20_000;
    let all = |one: &dyn Fn(usize) -> String| (0..n).map(one).collect::<String>();
    for source in [
        all(&|i| format!("blast f{i}() {{ return g{}(); }}\n", n - i)),
        all(&|i| format!("turbo v{i} = w{i};\n")),
        format!("blast f({}) {{ }}", all(&|i| format!("a{i}, "))),
        format!("struct S {{ {} }}", all(&|i| format!("f{i};"))),
        format!("struct S {{ a; }} turbo s = S {{ {} }};", all(&|i| format!("f{i}: 1, "))),
    ] {
        let begun = std::time::Instant::now();
        ends(source, &natives);
        assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
    }
}

#[test]
fn functions_with_too_much_in_them_are_a_diagnostic() {
    let natives = natives();
    let names = |n: usize| (0..n).map(|i| format!("a{i}")).collect::<Vec<_>>().join(", ");
    let variables: String = (0..400).map(|i| format!("turbo v{i} = {i}; ")).collect();
    assert_eq!(ends(format!("blast f() {{ {variables} }}"), &natives), "diagnostic R0211");
    assert_eq!(ends(format!("blast f({}) {{ }}", names(300)), &natives), "diagnostic R0211");
    assert_eq!(ends(format!("blast main({}) {{ }}", names(300)), &natives), "diagnostic R0211");
    assert_eq!(ends(format!("echo({});", vec!["1"; 300].join(", ")), &natives), "diagnostic R0211");
    // As many at the top of a file are no problem: they become globals.
    assert_eq!(ends(variables, &natives), "value");
    let fields: String = (0..300).map(|i| format!("f{i}; ")).collect();
    assert_eq!(ends(format!("struct S {{ {fields} }} turbo s = S {{ f1: 1 }};"), &natives), "diagnostic R0211");
}

#[test]
fn hostile_programs_end_with_the_bound_they_hit() {
    let natives = natives();
    for (source, end) in [
        ("loop { }", "budget"),
        ("blast f() { f(); } f();", "depth"),
        ("turbo f = blast () { return f(); }; f();", "depth"),
        ("turbo s = \"ab\"; loop { s = s + s; }", "memory"),
        ("turbo s = \"ab\"; loop { s = `${s}${s}`; }", "memory"),
        ("turbo a = [1]; loop { a = a + a; }", "memory"),
        ("turbo a = [1]; loop { a = [...a, ...a]; }", "memory"),
        ("turbo a = []; loop { a.push(a.copy()); }", "memory"),
        ("\"x\".pad_start(100000000000);", "memory"),
        ("\"x\".repeat(9000000000000000000);", "memory"),
        ("turbo s = \"a\".repeat(100000); s.replace(\"a\", s);", "memory"),
        ("turbo s = \"a\".repeat(100000); array.make(100, s).join(s);", "memory"),
        ("array.range(-9000000000000000000, 9000000000000000000, 3);", "memory"),
        ("turbo a = []; loop { a = [a]; }", "memory"),
        ("turbo a = []; cruise (i in 0..100000) { a = [a]; } echo(a); echo(a == a); json.stringify(a);", "memory"),
        ("turbo a = []; cruise (i in 0..10000) { a = [a]; } json.stringify(a);", "json"),
        ("turbo ts = []; loop { ts.push(spawn blast () { return 1; }); }", "memory"),
        ("blast f() { spawn f(); spawn f(); } f(); await spawn blast () { loop { } };", "memory"),
        ("json.parse(\"\\\"\\\\é\");", "json"),
        ("json.parse(\"[\\\"\\\\u12é4\\\"]\");", "json"),
        ("turbo o = {}; turbo i = 0; loop { o = {}; o[\"a\" + i] = o; i++; }", "budget"),
    ] {
        let got = ends(source.to_owned(), &natives);
        assert_eq!(got, end, "{source}");
    }
}

/// A stream of numbers from a seed, for programs nobody would write.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

#[test]
fn random_programs_end() {
    const PIECES: &[&str] = &[
        "turbo x = 1; ",
        "turbo y = [1, \"é\", 'c']; ",
        "x = ",
        "y = ",
        "x",
        "y",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "; ",
        "1",
        "2.5",
        "\"text\"",
        "'c'",
        "null",
        "true",
        " + ",
        " - ",
        " * ",
        " / ",
        " % ",
        " == ",
        " < ",
        " && ",
        " ?? ",
        " ? ",
        " : ",
        "..",
        "if (x) { ",
        "loop (x) { ",
        "cruise (i in y) { ",
        "cruise (i in 0..3) { ",
        "try { ",
        "} catch (e) { ",
        "} finally { ",
        "throw ",
        "return ",
        "break; ",
        "continue; ",
        "blast f(a, b = 2, ...c) { ",
        "blast (a) { ",
        "f(",
        "f(...y",
        ".length",
        ".push(",
        ".map(",
        ".sort(",
        "?.a",
        "[0]",
        "[1..]",
        "echo(",
        "await ",
        "spawn ",
        "x++; ",
        "x += ",
        "turbo [p, ...q] = ",
        "turbo {a, ...o} = ",
        "{a: 1, ...x}",
        "switch (x) { case 1: ",
        "default: ",
        "`t${",
        "}`",
        "typeof ",
        ", ",
        "json.parse(",
        "str.split(",
        "struct S { i32 a; b; } ",
        "S { a: ",
        "enum E { A, B } ",
        "E.A",
        "S",
        "error(\"e\")",
        "Ok(",
        ".unwrap()",
    ];
    let natives = natives();
    let mut ran = 0;
    for seed in 1..1500u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let length = 1 + random.below(12);
        let mut source = String::new();
        let mut open = 0usize;
        for _ in 0..length {
            let piece = PIECES[random.below(PIECES.len())];
            open = (open + piece.matches('{').count()).saturating_sub(piece.matches('}').count());
            source.push_str(piece);
        }
        source.push_str(&"}".repeat(open));
        let end = ends(source, &natives);
        ran += usize::from(!end.starts_with("diagnostic"));
    }
    // Most are nonsense to the parser; some must get as far as running, or the test says nothing about the machine.
    assert!(ran > 20, "only {ran} ran");
}

#[test]
fn random_statements_run_to_an_end() {
    const STATEMENTS: &[&str] = &[
        "x = x + y;",
        "y = [x, y];",
        "x = {a: x, b: y};",
        "x = typeof x;",
        "y = \"\" + y;",
        "x = x.a;",
        "y = y[0];",
        "x = x?.a?.[1] ?? 3;",
        "try { x = x / y; } catch (e) { x = e.message; }",
        "try { y.push(x); } catch (e) { y = []; }",
        "cruise (i in 0..5) { z += i; }",
        "try { cruise (i in y) { x = i; if (i == 3) { break; } } } catch (e) { } finally { z = 1; }",
        "f = blast (a, b = x) { return [a, b, z]; };",
        "try { x = f(x); } catch (e) { x = e; }",
        "try { y = f(b: x, a: y); } catch (e) { y = e.kind; }",
        "x = `${x}${y}`;",
        "t = spawn f(x);",
        "try { x = await t; } catch (e) { x = 1; }",
        "try { x = json.parse(json.stringify(x)); } catch (e) { }",
        "try { [x, y] = [y, x]; } catch (e) { }",
        "try { turbo {a, ...r} = x; y = r; } catch (e) { }",
        "try { x = y.map(f); } catch (e) { x = 2; }",
        "try { y.sort(); } catch (e) { }",
        "z = z * 31 % 1000;",
        "try { x.a = y; } catch (e) { }",
        "try { x[z] = y; } catch (e) { }",
        "try { x = x[1..]; } catch (e) { }",
        "try { x = s(x, y, z); } catch (e) { } finally { y = 4; }",
        "switch (z % 3) { case 0: x = 1; case 1: y = 'c'; break; default: z++; }",
        "x = x == y || x && y;",
        "try { x = -x; } catch (e) { x = 0.5; }",
        "g = blast () { z += 1; return z; }; g(); g();",
        "if (str(x).length > 200) { x = 1; y = 2; }",
        "x = P { a: z, b: x };",
        "try { x.a += 1; } catch (e) { }",
        "try { x = y + x * 2 - z; } catch (e) { }",
        "f = s;",
        "o[\"k\" + z] = x; x = o;",
        "o.remove(\"k\" + z);",
    ];
    let natives = natives();
    for seed in 1..600u64 {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
        let head = "struct P { i32 a; b; } turbo x = 1; turbo y = [2]; turbo z = 3; turbo f = blast (a) { return a; }; turbo g = null; turbo t = null; turbo o = {}; blast s(a, ...b) { if (z > 500) { throw b; } return b; }\n";
        let body: String = (0..60).map(|_| STATEMENTS[random.below(STATEMENTS.len())]).collect();
        let source = format!("{head}cruise (round in 0..4) {{ {body} }} echo(str(z));");
        let end = ends(source.clone(), &natives);
        assert!(!end.starts_with("diagnostic"), "{end} {source}");
    }
}
