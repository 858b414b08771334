//! What a host can rely on when it drives a machine: steps, tasks, limits, values that stay alive.

use std::collections::BTreeMap;
use std::sync::Arc;

use rads_compile::{Compiled, Sources, compile};
use rads_vm::{Limits, NativeBody, Natives, Params, Step, TaskId, Value, Vm};

struct Files(BTreeMap<&'static str, &'static str>);

impl Sources for Files {
    fn read(&self, path: &str) -> Result<String, String> {
        self.0.get(path).map(|text| (*text).to_owned()).ok_or_else(|| "no such file".to_owned())
    }
}

const ASK: u32 = 40;

fn natives() -> Arc<Natives> {
    let mut builder = Natives::builder();
    rads_vm::core_natives(&mut builder);
    builder.function("host", "ask", Params::at_least(0), NativeBody::Host(ASK));
    builder.function("host", "serve", Params::exactly(1), NativeBody::Host(ASK + 1));
    Arc::new(builder.build())
}

fn compiled(source: &'static str, natives: &Natives) -> Compiled {
    compile(&Files(BTreeMap::from([("main.rads", source)])), "main.rads", natives)
}

fn machine(source: &'static str, limits: Limits) -> Vm {
    let natives = natives();
    let compiled = compiled(source, &natives);
    let shown = compiled.render(false);
    Vm::new(Arc::new(compiled.program.unwrap_or_else(|| panic!("{shown}"))), natives, limits)
}

/// Runs until something other than text comes; gives both.
fn next(vm: &mut Vm) -> (String, Step) {
    let mut out = String::new();
    loop {
        match vm.run(100_000) {
            Step::Echo { text } => out.push_str(&text),
            Step::Yielded => {}
            step => return (out, step),
        }
    }
}

fn call(step: Step) -> (TaskId, Vec<Value>) {
    match step {
        Step::Call { task, native: ASK, args, .. } => (task, args),
        other => panic!("not the expected call: {other:?}"),
    }
}

#[test]
fn a_fresh_machine_with_a_server_is_small() {
    let source = r#"
        blast hello(path) { return "hello from " + path; }
        blast main() { host.serve(hello); }
    "#;
    let mut vm = machine(source, Limits::default());
    vm.start();
    let (_, step) = next(&mut vm);
    assert!(matches!(step, Step::Call { native, .. } if native == ASK + 1), "{step:?}");
    assert!(vm.memory_used() < 64 << 10, "{} bytes", vm.memory_used());
}

#[test]
fn a_host_spawns_a_task_for_each_request() {
    let mut vm = machine(
        r#"blast handle(method, path) { host.ask(path); return method + " " + path; } blast main() { host.ask(handle); }"#,
        Limits::default(),
    );
    vm.start();
    let (main, args) = call(next(&mut vm).1);
    let handler = vm.root(args[0]);
    assert_eq!(vm.heap().param_count(args[0]), Some(2));
    let mut tasks = Vec::new();
    for path in ["/a", "/b", "/c"] {
        let args = [vm.heap().str("GET"), vm.heap().str(path), vm.heap().str("dropped")];
        let callee = vm.rooted(handler);
        tasks.push(vm.spawn(callee, &args).expect("it is a blast"));
    }
    let mut waiting = Vec::new();
    for path in ["/a", "/b", "/c"] {
        let (task, args) = call(next(&mut vm).1);
        assert_eq!(vm.heap().text(args[0]), path);
        waiting.push(task);
    }
    assert_eq!(waiting, tasks);
    assert!(matches!(next(&mut vm).1, Step::Idle));
    for (task, answer) in waiting.into_iter().zip(["GET /a", "GET /b", "GET /c"]).rev() {
        vm.resume(task, Ok(Value::Null));
        match next(&mut vm).1 {
            Step::Finished { task: ended, outcome: Ok(value) } => {
                assert_eq!(ended, task);
                assert_eq!(vm.heap().text(value), answer);
            }
            other => panic!("{other:?}"),
        }
    }
    vm.resume(main, Ok(Value::Null));
    assert!(matches!(next(&mut vm).1, Step::Finished { task, outcome: Ok(_) } if task == main));
    assert_eq!(vm.task_count(), 0);
}

#[test]
fn only_functions_can_be_spawned() {
    let mut vm = machine("echo(1);", Limits::default());
    let error = vm.spawn(Value::Int(5), &[]).expect_err("an int is no function");
    assert_eq!(vm.heap().display(error), "an integer cannot be called");
}

#[test]
fn cancelling_runs_finally_and_ends_the_task() {
    let source = r#"blast main() { try { host.ask(); } finally { echo("cleaned up"); } }"#;
    let mut vm = machine(source, Limits::default());
    let main = vm.start();
    let (task, _) = call(next(&mut vm).1);
    vm.cancel(task);
    let (out, step) = next(&mut vm);
    assert_eq!(out, "cleaned up\n");
    match step {
        Step::Finished { task, outcome: Err(uncaught) } => {
            assert_eq!(task, main);
            assert_eq!(uncaught.kind.as_deref(), Some("cancelled"));
        }
        other => panic!("{other:?}"),
    }
    // The answer that comes too late is for nobody.
    vm.resume(task, Ok(Value::Int(1)));
    assert!(matches!(next(&mut vm).1, Step::Idle));
}

#[test]
fn an_endless_loop_yields_to_the_host() {
    let mut vm = machine("loop { }", Limits::default());
    vm.start();
    for _ in 0..3 {
        assert!(matches!(vm.run(10_000), Step::Yielded));
    }
}

#[test]
fn text_comes_before_the_call_that_follows_it() {
    let mut vm = machine(r#"echo("one"); host.ask(1); echo("two");"#, Limits::default());
    vm.start();
    assert!(matches!(vm.run(1000), Step::Echo { text } if text == "one\n"));
    let (task, _) = call(vm.run(1000));
    vm.resume(task, Ok(Value::Null));
    assert!(matches!(vm.run(1000), Step::Echo { text } if text == "two\n"));
    assert!(matches!(vm.run(1000), Step::Finished { outcome: Ok(_), .. }));
    assert!(matches!(vm.run(1000), Step::Idle));
}

#[test]
fn arguments_and_roots_survive_collections() {
    let source = r#"
        blast main() {
            turbo answer = host.ask("kept " + 1, [1, {a: "b"}]);
            echo(answer);
        }
        blast churn() { cruise (i in 0..1000) { turbo s = "garbage " + i; } }
    "#;
    let mut vm = machine(source, Limits { collect_always: true, ..Limits::default() });
    vm.start();
    let (task, args) = call(next(&mut vm).1);
    let built = vm.heap().str("built outside");
    let root = vm.root(built);
    let churn = vm.program().find_function("churn").expect("it is declared");
    let churn = vm.heap().function(churn);
    vm.spawn(churn, &[]).expect("a blast");
    assert!(matches!(next(&mut vm).1, Step::Finished { outcome: Ok(_), .. }));
    assert_eq!(vm.heap().display(args[0]), "kept 1");
    assert_eq!(vm.heap().display(args[1]), "[1, {a: b}]");
    let answer = vm.rooted(root);
    vm.unroot(root);
    vm.resume(task, Ok(answer));
    assert_eq!(next(&mut vm).0, "built outside\n");
}

#[test]
fn a_thousand_waiting_tasks_cost_less_than_a_kilobyte_each() {
    let source = r#"
        blast wait(n) { host.ask(n); return n; }
        blast main() { turbo ts = []; cruise (i in 0..1000) { ts.push(spawn wait(i)); } host.ask(); }
    "#;
    let mut vm = machine(source, Limits::default());
    vm.start();
    let mut calls = 0;
    while let (_, Step::Call { .. }) = next(&mut vm) {
        calls += 1;
    }
    assert_eq!(calls, 1001);
    assert!(vm.memory_used() < 1_000_000, "{} bytes", vm.memory_used());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut vm = machine("echo(math.random(), math.random_int(1, 1000000));", Limits::default());
        vm.seed(seed);
        vm.start();
        next(&mut vm).0
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn sources_are_read_once_however_often_they_are_imported() {
    let natives = natives();
    let files = Files(BTreeMap::from([
        ("main.rads", "import \"a.rads\"; import \"b.rads\"; echo(a() + b());"),
        ("a.rads", "import \"b.rads\"; blast a() { return b(); }"),
        ("b.rads", "import \"a.rads\"; echo(\"b runs\"); blast b() { return 1; }"),
    ]));
    let compiled = compile(&files, "main.rads", &natives);
    assert_eq!(compiled.files.iter().filter(|f| f.path == "b.rads").count(), 1);
    let program = compiled.program.expect("a cycle of imports is no error");
    let mut vm = Vm::new(Arc::new(program), natives, Limits::default());
    vm.start();
    assert_eq!(next(&mut vm).0, "b runs\n2\n");
}

#[test]
fn a_missing_entry_is_a_diagnostic() {
    let compiled = compile(&Files(BTreeMap::new()), "gone.rads", &natives());
    assert!(compiled.program.is_none());
    assert!(compiled.render(false).contains("cannot read `gone.rads`: no such file"), "{}", compiled.render(false));
}

#[test]
fn disassembly_shows_what_a_loop_costs() {
    let natives = natives();
    let source = "blast sum(n) { turbo s = 0; turbo i = 0; while (i < n) { s = s + i; i = i + 1; } return s; }";
    let program = compiled(source, &natives).program.expect("it compiles");
    let listing = program.disassemble();
    let sum: Vec<&str> = listing.lines().skip_while(|line| !line.starts_with("blast sum")).collect();
    // Three instructions a round: two additions and the jump.
    let expected = [
        "     0 Int { a: 1, value: 0 }",
        "     1 Int { a: 2, value: 0 }",
        "     2 Jump { by: 2 }",
        "     3 Add { a: 1, b: 1, c: 2 }",
        "     4 AddInt { a: 2, b: 2, value: 1 }",
        "     5 JumpLess { a: 2, b: 0, by: -3 }",
        "     6 Return { a: 1 }",
    ];
    assert_eq!(&sum[1..8], &expected, "{listing}");
}
