//! Runs `app.rads` on a machine whose host only records what is asked for.
//!
//! Nothing outside can be reached: effects are refused at the line that asks for one, the environment is what the caller
//! hands in, and work and memory are bounded. So the same files and the same environment give the same spec.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{AppKey, AppSpec, Code, Name, ProbeKind, Problem, Program, ServiceSpec, StarTemplate};
use rads_compile::{Compiled, Sources, compile};
use rads_syntax::{Severity, Span};
use rads_vm::{Cx, Limits, Location, NativeBody, Natives, Params, Step, TaskId, Uncaught, Value, Vm, core_natives};

use crate::bundle::{Bundle, Files, Packer};
use crate::fault::Fault;
use crate::names::OPTIONS;
use crate::options::{self, Defaults, Draft, OptionFault};
use crate::place;
use crate::setting::Setting;

/// What evaluating may use: far beyond any description, and over within a second.
const LIMITS: Limits = Limits { memory: 64 << 20, instructions: Some(20_000_000), depth: 1_000, collect_always: false };
/// How much runs between two looks; nothing waits meanwhile, so any size does.
const SLICE: u32 = 1_000_000;

/// Host numbers of what is recorded; refused effects come behind.
const DEPLOY: u32 = 1;
const CREATE: u32 = 2;
const ENV_GET: u32 = 3;
const FIRST_REFUSED: u32 = 100;

/// Where a description comes from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub files: &'a dyn Files,
    /// The file to evaluate, a path of `files`.
    pub entry: &'a str,
    /// The folder of `files` as somebody typed it, with a `/` at its end, or nothing: faults show it before the paths of files.
    pub shown_in: &'a str,
    /// What the app is called, and its namespace unless the file names one.
    pub app: &'a AppKey,
    /// What `env.get` answers.
    pub env: &'a BTreeMap<String, String>,
    /// Everything that stars can call: their scripts are checked against it, and `app.rads` may name but not do it.
    pub library: &'a Natives,
    /// Colours in faults.
    pub colour: bool,
}

/// What a description asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    pub spec: AppSpec,
    /// The files of each service.
    pub bundles: BTreeMap<Name, Bundle>,
    /// What the description printed.
    pub echoed: String,
}

/// Evaluates a description. Every fault that can be found is reported; nothing was changed by finding it.
pub fn evaluate(source: &Source<'_>) -> Result<Evaluated, Vec<Fault>> {
    evaluate_with(source, &[])
}

/// The same, with options of a command line in place of what the description says: for one that has one service.
pub fn evaluate_with(source: &Source<'_>, typed: &[(String, Setting)]) -> Result<Evaluated, Vec<Fault>> {
    let (natives, refused) = recording_natives(source.library);
    let natives = Arc::new(natives);
    let texts = Texts::new(source.files);
    let mut compiled = compile(&texts, source.entry, &natives).shown_below(source.shown_in);
    let Some(program) = compiled.program.take() else {
        return Err(diagnostics(&compiled, source.colour));
    };
    let mut recorder = Recorder { source, compiled, refused, drafts: BTreeMap::new(), echoed: String::new() };
    let mut vm = Vm::new(Arc::new(program), natives, LIMITS);
    recorder.run(&mut vm).map_err(|fault| vec![fault])?;
    let Recorder { mut drafts, echoed, compiled, .. } = recorder;
    if !typed.is_empty() && drafts.len() != 1 {
        let message = format!("the app has {} services; which is meant is not clear", drafts.len());
        let problem = Problem::new(Code::Usage, message).help("change the app's file instead");
        return Err(vec![Fault::nowhere(&problem)]);
    }
    for recorded in drafts.values_mut() {
        overlay(&mut recorded.settings, typed);
    }
    let mut faults = Vec::new();
    let mut read = Vec::new();
    for (name, Recorded { at, settings, defaults }) in drafts {
        let written = Some((compiled_file(&compiled, at), at));
        match options::read(settings, defaults) {
            Ok(draft) => read.push((name, written, draft)),
            Err(found) => faults.extend(found.into_iter().map(|OptionFault { path, problem }| {
                match path.first().is_some_and(|option| typed.iter().any(|(name, _)| name == option)) {
                    true => Fault::nowhere(&as_typed(problem, &path, typed)),
                    false => shown(source, &written, &path, &as_typed(problem, &path, typed)),
                }
            })),
        }
    }
    if faults.is_empty() { finish(source, read, echoed) } else { Err(faults) }
}

/// A service described by options alone, as on a command line.
pub fn single_service(
    source: &Source<'_>,
    name: &Name,
    settings: Vec<(String, Setting)>,
    replaced_when_ended: bool,
) -> Result<Evaluated, Vec<Fault>> {
    let typed = settings.clone();
    one(source, name, settings, replaced_when_ended, |problem, path| as_typed(problem, path, &typed))
}

/// The same, as a program asks for it: in its words.
pub fn service_of_program(
    source: &Source<'_>,
    name: &Name,
    settings: Vec<(String, Setting)>,
    replaced_when_ended: bool,
) -> Result<Evaluated, Vec<Fault>> {
    one(source, name, settings, replaced_when_ended, |problem, _| problem)
}

fn one(
    source: &Source<'_>,
    name: &Name,
    settings: Vec<(String, Setting)>,
    replaced_when_ended: bool,
    told: impl Fn(Problem, &[String]) -> Problem,
) -> Result<Evaluated, Vec<Fault>> {
    let defaults = if replaced_when_ended { Defaults::DEPLOY } else { Defaults::CREATE };
    let draft = options::read(settings, defaults).map_err(|faults| {
        let faults = faults.into_iter().map(|fault| Fault::nowhere(&told(fault.problem, &fault.path)));
        faults.collect::<Vec<_>>()
    })?;
    finish(source, vec![(name.clone(), None, draft)], String::new())
}

/// Options of which one replaces the other.
const ALTERNATIVES: [(&str, &str); 4] =
    [("cpu_percent", "cpu_cores"), ("ram_mb", "ram_gb"), ("ram_soft_mb", "ram_balloon"), ("script", "command")];

/// Puts what was typed in place of what was written; of names and values, each by its name.
fn overlay(written: &mut Vec<(String, Setting)>, typed: &[(String, Setting)]) {
    for (name, value) in typed {
        let other = ALTERNATIVES.iter().find_map(|(one, other)| match name {
            name if name == one => Some(*other),
            name if name == other => Some(*one),
            _ => None,
        });
        written.retain(|(known, _)| Some(known.as_str()) != other || typed.iter().any(|(typed, _)| typed == known));
        match (written.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value), value) {
            (Some(Setting::Map(entries)), Setting::Map(more)) => {
                let stays = |(key, _): &(String, Setting)| !more.iter().any(|(new, _)| new == key);
                entries.retain(stays);
                entries.extend(more.iter().cloned());
            }
            (Some(known), value) => *known = value.clone(),
            (None, value) => written.push((name.clone(), value.clone())),
        }
    }
}

/// How values of more than a word are typed.
const AS_TYPED: [(&str, &str); 10] = [
    ("env", "--env NAME=VALUE"),
    ("volumes", "--volume /data=pages` or `--volume /data=pages,size_mb=100"),
    ("tmpfs", "--tmpfs /cache=size_mb=16"),
    ("binds", "--bind /etc/app.conf=conf/app.conf"),
    ("secrets", "--secret /run/secrets/db=db-password"),
    ("env_secrets", "--env-secret DB_PASSWORD=db-password"),
    ("startup", "--startup http=/started,interval_ms=500"),
    ("ready", "--ready /healthz` or `--ready 'exec=test -e /tmp/ok'"),
    ("live", "--live http=/alive,failures=5"),
    ("weaken", "--weaken seccomp=off"),
];

/// A problem in the words of a command line: `--ram-mb` for `ram_mb`, of those that were typed there.
fn as_typed(mut problem: Problem, path: &[String], typed: &[(String, Setting)]) -> Problem {
    let is_typed =
        |name: &str| typed.iter().any(|(known, _)| known == name) && path.first().is_some_and(|part| part == name);
    if let Some((_, example)) = AS_TYPED.iter().find(|(name, _)| is_typed(name))
        && problem.help.is_none()
    {
        problem = problem.help(format!("type it as `{example}`"));
    }

    // Both sides of what cannot be together are on one line, however few of them were typed.
    for (name, _) in typed.iter().filter(|(name, _)| OPTIONS.contains(&name.as_str())) {
        let option = format!("`--{}`", name.replace('_', "-"));
        problem.message = problem.message.replace(&format!("`{name}`"), &option);
        problem.help = problem.help.map(|help| help.replace(&format!("`{name}`"), &option));
    }
    problem
}

/// The file and text a draft was written in.
type Written = Option<((String, String), Location)>;

/// Checks what services have to do with each other and packs their files.
fn finish(source: &Source<'_>, drafts: Vec<(Name, Written, Draft)>, echoed: String) -> Result<Evaluated, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut app = source.app.clone();
    let mut services = BTreeMap::new();
    let mut bundles = BTreeMap::new();
    let mut entries = BTreeMap::new();
    let mut namespace: Option<Name> = None;
    for (name, written, draft) in drafts {
        let mut fault = |path: &[&str], problem: Problem| {
            let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
            faults.push(shown(source, &written, &path, &problem));
        };
        if let Some(asked) = draft.namespace {
            if namespace.as_ref().is_some_and(|first| *first != asked) {
                let message = format!("one app lives in one namespace, `{name}` asks for `{asked}` beside another");
                fault(&["namespace"], Problem::new(Code::InvalidValue, message));
            }
            app.namespace = asked.clone();
            namespace = Some(asked);
        }
        let mut spec: ServiceSpec = draft.spec;
        if let Some(entry) = spec.entry.as_ref().filter(|entry| entry.listen.port != 0)
            && let Some(first) = entries.insert(entry.listen, name.clone())
        {
            let message = format!("`{first}` and `{name}` both listen on {}", entry.listen);
            let path = ["listen"];
            fault(
                &path,
                Problem::new(Code::InvalidValue, message).help("give one of them another `listen`, or 0 for any"),
            );
        }
        match pack(source, &mut spec.template, &draft.assets) {
            Ok(bundle) => {
                spec.template.bundle = bundle.id;
                bundles.insert(name.clone(), bundle);
            }
            Err(PackFault::Diagnostics(found)) => faults.extend(found),
            Err(PackFault::Option(path, problem)) => fault(&[path], problem),
            Err(PackFault::Entry(option, entry, problem)) => fault(&[option, &entry], problem),
        }
        services.insert(name, spec);
    }
    if faults.is_empty() { Ok(Evaluated { spec: AppSpec { app, services }, bundles, echoed }) } else { Err(faults) }
}

enum PackFault {
    /// The service's script is faulty; these are its own diagnostics.
    Diagnostics(Vec<Fault>),
    Option(&'static str, Problem),
    /// An entry of an option.
    Entry(&'static str, String, Problem),
}

/// The scripts with all they import, the commands' own files, the root file system as an archive, and the assets.
fn pack(source: &Source<'_>, template: &mut StarTemplate, assets: &[String]) -> Result<Bundle, PackFault> {
    let mut packer = Packer::new(source.files);
    if let Some(rootfs) = &mut template.rootfs {
        *rootfs = packer.add_root(rootfs).map_err(|problem| PackFault::Option("rootfs", problem))?;
    }
    match &template.program {
        Program::Script(script) => add_script(source, &mut packer, script, "script")?,
        Program::Command(words) => add_program(&mut packer, words, "command")?,
        Program::Nothing => {}
    }
    let (startup, live) = (template.health.startup.as_ref(), template.health.live.as_ref());
    for (option, probe) in [("startup", startup), ("ready", Some(&template.probe)), ("live", live)] {
        match probe.map(|probe| &probe.kind) {
            Some(ProbeKind::Script { path }) => add_script(source, &mut packer, path, option)?,
            Some(ProbeKind::Exec { command }) => add_program(&mut packer, command, option)?,
            Some(ProbeKind::Started | ProbeKind::Tcp | ProbeKind::Http { .. }) | None => {}
        }
    }
    add_program(&mut packer, &template.hooks.before_start, "before_start")?;
    add_program(&mut packer, &template.hooks.before_stop, "before_stop")?;
    for (inside, path) in &template.interior.binds {
        packer.add(path).map_err(|problem| PackFault::Entry("binds", inside.clone(), problem))?;
    }
    for path in assets {
        packer.add(path).map_err(|problem| PackFault::Option("assets", problem))?;
    }
    Ok(packer.pack())
}

/// Adds a script that an option names, and all it imports.
fn add_script(
    source: &Source<'_>,
    packer: &mut Packer<'_>,
    script: &str,
    option: &'static str,
) -> Result<(), PackFault> {
    source.files.kind(script).map_err(|reason| {
        let message = format!("cannot read the script `{script}`: {reason}");
        let problem = Problem::new(Code::FileUnreadable, message);
        PackFault::Option(option, problem.help("the path is relative to the folder of the app's file"))
    })?;
    let texts = Texts::new(source.files);
    let compiled = compile(&texts, script, source.library).shown_below(source.shown_in);
    if compiled.program.is_none() {
        return Err(PackFault::Diagnostics(diagnostics(&compiled, source.colour)));
    }
    for (path, content) in texts.read.into_inner() {
        packer.add_content(&path, content, false).map_err(|problem| PackFault::Option(option, problem))?;
    }
    Ok(())
}

/// Adds the program of a command that an option gives, when it is a path within the app; any other is the host's.
fn add_program(packer: &mut Packer<'_>, words: &[String], option: &'static str) -> Result<(), PackFault> {
    let own = words.first().filter(|word| word.contains('/') && !word.starts_with('/'));
    own.map_or(Ok(()), |path| packer.add(path)).map_err(|problem| PackFault::Option(option, problem))
}

fn shown(source: &Source<'_>, written: &Written, path: &[String], problem: &Problem) -> Fault {
    let Some(((file, text), at)) = written else {
        return Fault::nowhere(problem);
    };
    let span = place::of_option(text, span_of(*at), path);
    Fault::at(problem, file, text, span, source.colour)
}

/// An error that nothing in the description caught, with its code.
fn failed(uncaught: &Uncaught) -> Fault {
    let code = Code::ScriptFaulty;
    let shown = uncaught.to_string();
    let text = shown.strip_prefix("error: ").unwrap_or(&shown).trim_end();
    let bounded = uncaught.kind.as_deref().is_some_and(|kind| matches!(kind, "budget" | "memory" | "depth"));
    let help = match bounded {
        true => "\nhelp: an app's file only describes: what computes or waits belongs in a service's own script",
        false => "",
    };
    let problem = Problem::new(code, text);
    Fault { code, text: format!("error[{}]: {text}{help}", code.as_str()), problem }
}

struct Recorder<'a> {
    source: &'a Source<'a>,
    compiled: Compiled,
    refused: Vec<String>,
    drafts: BTreeMap<Name, Recorded>,
    echoed: String,
}

/// A service as it was asked for.
struct Recorded {
    at: Location,
    settings: Vec<(String, Setting)>,
    defaults: Defaults,
}

impl Recorder<'_> {
    fn run(&mut self, vm: &mut Vm) -> Result<(), Fault> {
        let main = vm.start();
        let mut over = false;
        loop {
            match vm.run(SLICE) {
                Step::Call { task, native, args, at, .. } => self.call(vm, task, native, &args, at)?,
                Step::Echo { text } => self.echoed.push_str(&text),
                Step::Finished { task, outcome } => {
                    outcome.map_err(|uncaught| failed(&uncaught))?;
                    over |= task == main;
                }
                Step::Yielded => {}
                Step::Idle if over => break,
                Step::Idle => {
                    let problem =
                        Problem::new(Code::ScriptFaulty, "the description waits for something that never comes");
                    return Err(self.at_start(&problem));
                }
            }
        }
        if self.drafts.is_empty() {
            let problem = Problem::new(Code::InvalidValue, format!("`{}` describes no service", self.source.entry))
                .help("call `constellation.deploy(\"name\", { script: \"server.rads\" })`");
            return Err(self.at_start(&problem));
        }
        Ok(())
    }

    fn call(&mut self, vm: &mut Vm, task: TaskId, native: u32, args: &[Value], at: Location) -> Result<(), Fault> {
        let answer = match native {
            DEPLOY | CREATE => {
                let defaults = if native == DEPLOY { Defaults::DEPLOY } else { Defaults::CREATE };
                let name = self.record(&vm.heap(), args, at, defaults)?;
                let mut cx = vm.heap();
                let name = cx.str(name.as_str());
                cx.object_of(&[("name", name)])
            }
            ENV_GET => self.env(&mut vm.heap(), args),
            _ => {
                let what = self.refused.get((native - FIRST_REFUSED) as usize).map_or("that", String::as_str);
                let message = format!("`{}` describes the app and cannot `{what}`", self.source.entry);
                let problem = Problem::new(Code::ScriptFaulty, message).help("do it in the service's own script");
                return Err(self.at_call(at, &[], &problem));
            }
        };
        vm.resume(task, Ok(answer));
        Ok(())
    }

    /// `deploy(name, options)`, or `create(options)` with the name among them.
    fn record(&mut self, cx: &Cx<'_>, args: &[Value], at: Location, defaults: Defaults) -> Result<Name, Fault> {
        let mut settings = Vec::new();
        let mut name = None;
        for value in args {
            match Setting::from_value(cx, *value) {
                Setting::Map(entries) => settings.extend(entries),
                Setting::Text(text) if name.is_none() => name = Some(text),
                other => {
                    let message =
                        format!("a service is described by its name and one object, not by {}", other.shown());
                    return Err(self.at_call(at, &[], &Problem::new(Code::InvalidValue, message)));
                }
            }
        }
        if name.is_none()
            && let Some(own) = settings.iter().position(|(key, _)| key == "name")
            && let (_, Setting::Text(text)) = settings.remove(own)
        {
            name = Some(text);
        }
        let name = name.unwrap_or_default().parse::<Name>().map_err(|error| {
            self.at_call(at, &[], &Problem::new(Code::InvalidValue, format!("name of the service: {error}")))
        })?;
        if self.drafts.contains_key(&name) {
            let problem = Problem::new(Code::AlreadyExists, format!("service `{name}` is described twice"));
            return Err(self.at_call(at, &[], &problem));
        }
        self.drafts.insert(name.clone(), Recorded { at, settings, defaults });
        Ok(name)
    }

    fn env(&self, cx: &mut Cx<'_>, args: &[Value]) -> Value {
        let name = cx.text(cx.arg(args, 0)).to_owned();
        match self.source.env.get(&name) {
            Some(value) => cx.str(value),
            None => cx.arg(args, 1),
        }
    }

    fn at_call(&self, at: Location, path: &[String], problem: &Problem) -> Fault {
        let (file, text) = compiled_file(&self.compiled, at);
        let span = place::of_option(&text, span_of(at), path);
        Fault::at(problem, &file, &text, span, self.source.colour)
    }

    fn at_start(&self, problem: &Problem) -> Fault {
        let (file, text) = match self.compiled.files.first() {
            Some(file) => (file.path.as_str(), &*file.text),
            None => (self.source.entry, ""),
        };
        Fault::at(problem, file, text, Span::default(), self.source.colour)
    }
}

/// What `app.rads` may call: the core, what is recorded, and every effect of the library by name, to be refused.
fn recording_natives(library: &Natives) -> (Natives, Vec<String>) {
    let mut builder = Natives::builder();
    core_natives(&mut builder);
    let core = builder.build();
    let mut refused = Vec::new();
    for (module, member) in library.functions() {
        let recorded = [("constellation", "deploy"), ("constellation", "create"), ("env", "get")];
        let is_recorded = recorded.contains(&(module, member));
        if is_recorded || core.lookup(module, member).is_some() {
            continue;
        }
        let number = FIRST_REFUSED + refused.len() as u32;
        refused.push(if module.is_empty() { member.to_owned() } else { format!("{module}.{member}") });
        builder.function(module, member, Params::at_least(0).with_options(), NativeBody::Host(number));
    }
    builder
        .function("constellation", "deploy", Params::exactly(1).with_options(), NativeBody::Host(DEPLOY))
        .function("constellation", "create", Params::at_least(0).with_options(), NativeBody::Host(CREATE))
        .function("env", "get", Params::between(1, 2), NativeBody::Host(ENV_GET));
    (builder.build(), refused)
}

/// Files as source texts; what was read is kept for the bundle.
struct Texts<'a> {
    files: &'a dyn Files,
    read: RefCell<BTreeMap<String, Vec<u8>>>,
}

impl<'a> Texts<'a> {
    fn new(files: &'a dyn Files) -> Self {
        Self { files, read: RefCell::new(BTreeMap::new()) }
    }
}

impl Sources for Texts<'_> {
    fn read(&self, path: &str) -> Result<String, String> {
        let content = self.files.read(path)?;
        let text = String::from_utf8(content.clone()).map_err(|_| "it is not UTF-8 text".to_owned())?;
        self.read.borrow_mut().insert(path.to_owned(), content);
        Ok(text)
    }
}

fn diagnostics(compiled: &Compiled, colour: bool) -> Vec<Fault> {
    let mut seen = BTreeSet::new();
    let errors = compiled.diagnostics.iter().filter(|(_, diagnostic)| diagnostic.severity == Severity::Error);
    errors
        .filter_map(|(file, diagnostic)| {
            let at = Location { file: *file, span: rads_vm::Span::default() };
            let (path, text) = compiled_file(compiled, at);
            let text = rads_syntax::render(diagnostic, &path, &text, colour);
            let problem = Problem::new(Code::ScriptFaulty, text.trim_end());
            seen.insert(text.clone()).then_some(Fault { code: Code::ScriptFaulty, text, problem })
        })
        .collect()
}

fn compiled_file(compiled: &Compiled, at: Location) -> (String, String) {
    let file = compiled.files.get(at.file.0 as usize);
    file.map_or_else(Default::default, |file| (file.path.clone(), file.text.clone().into_owned()))
}

fn span_of(at: Location) -> Span {
    Span::new(at.span.start, at.span.end)
}
