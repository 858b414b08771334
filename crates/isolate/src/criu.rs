//! CRIU, the program that keeps the memory of processes and brings it back: where it is, whether it works here, and a kit of it
//! that runs within any star.
//!
//! A kit is a folder with CRIU, its libraries and their loader. Within a star it is reached by a descriptor alone: the star has
//! no name for it, and nothing of the star's own files is loaded into it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};

use crate::fault::plain;

/// Where it is, when it is not on the `PATH`: a program, or a folder into which packages were unpacked.
pub const VARIABLE: &str = "RADS_CRIU";

/// The first release that can do without the rights that nobody has within a star's namespaces (`--unprivileged`), and with
/// which this was tried: major and minor.
const VERSION_MIN: (u32, u32) = (4, 1);

/// The first release that does not ask internet sockets whether they pass credentials, which Linux 6.16 takes amiss.
const VERSION_SOCKETS: (u32, u32) = (4, 2);

/// What it knows of this kernel, so that it need not try it within a star.
pub const KERNEL_FACTS: &str = "criu.kdat";
/// Where it may leave that: it takes only memory file systems for it.
const MEMORY_FOLDERS: [&str; 2] = ["/dev/shm", "/run"];

const PROGRAM: &str = "criu";
const LOADER: &str = "ld.so";

/// A CRIU that was found.
#[derive(Debug, Clone)]
pub struct Criu {
    program: PathBuf,
    /// Of a folder of packages: its own loader, and where its libraries are.
    own: Option<(PathBuf, String)>,
}

impl Criu {
    /// Looks where the environment says. The error says what there is instead.
    pub fn find() -> Result<Self, String> {
        match std::env::var_os(VARIABLE).filter(|place| !place.is_empty()) {
            Some(place) => Self::at(Path::new(&place)).map_err(|why| format!("`{VARIABLE}`: {why}")),
            None => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                // Where daemons are, which an ordinary user's `PATH` may leave out.
                let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
                let found = folders.map(|folder| folder.join(PROGRAM)).find(|program| program.is_file());
                let program = found.ok_or("CRIU is not installed: there is no `criu` on the `PATH`")?;
                Ok(Self { program: is_program(program)?, own: None })
            }
        }
    }

    fn at(place: &Path) -> Result<Self, String> {
        let shown = place.to_string_lossy().escape_debug().to_string();
        if !place.is_absolute() {
            return Err(format!("`{shown}` is not an absolute path"));
        }
        if !place.is_dir() {
            return Ok(Self { program: is_program(place.to_owned())?, own: None });
        }
        let program = ["usr/sbin", "usr/local/sbin", "sbin"].map(|folder| place.join(folder).join(PROGRAM));
        let program = program.into_iter().find(|program| program.is_file());
        let program = program.ok_or_else(|| format!("folder `{shown}` has no `usr/sbin/criu`"))?;
        let arch = std::env::consts::ARCH;
        let loaders = [
            format!("usr/lib64/ld-linux-{}.so.2", arch.replace('_', "-")),
            format!("lib64/ld-linux-{}.so.2", arch.replace('_', "-")),
            format!("usr/lib/ld-linux-{arch}.so.1"),
            format!("lib/ld-linux-{arch}.so.1"),
        ];
        let Some(loader) = loaders.iter().map(|loader| place.join(loader)).find(|loader| loader.is_file()) else {
            return Ok(Self { program: is_program(program)?, own: None });
        };
        let folders = [format!("usr/lib/{arch}-linux-gnu"), format!("lib/{arch}-linux-gnu"), "usr/lib64".to_owned()];
        let folders: Vec<_> = folders.iter().map(|folder| place.join(folder).to_string_lossy().into_owned()).collect();
        Ok(Self { program: is_program(program)?, own: Some((loader, folders.join(":"))) })
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    /// `4.1.1`, when it is one that will do and says that it works on this machine.
    pub fn check(&self) -> Result<String, String> {
        let (version, numbers) = self.version()?;
        self.run(&["check", "--unprivileged"], None)?;
        if numbers < VERSION_SOCKETS && asks_too_much_of_sockets() {
            let (major, minor) = VERSION_SOCKETS;
            return Err(format!("CRIU {version} cannot keep sockets on this kernel: {major}.{minor} or later can"));
        }
        Ok(version)
    }

    fn version(&self) -> Result<(String, (u32, u32)), String> {
        let said = self.run(&["--version"], None)?;
        let version = said.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or_default().trim();
        let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
        match (numbers.next(), numbers.next()) {
            (Some(major), minor) if (major, minor.unwrap_or(0)) >= VERSION_MIN => {
                Ok((version.to_owned(), (major, minor.unwrap_or(0))))
            }
            (Some(_), _) => {
                let (major, minor) = VERSION_MIN;
                Err(format!("CRIU {version} is too old: {major}.{minor} or later is needed"))
            }
            _ => Err(format!("`{}` does not tell its version", self.program.display())),
        }
    }

    /// Runs it to its end, and gives what it says on its standard output. The error is the last that it tells.
    fn run(&self, args: &[&str], runtime: Option<&Path>) -> Result<String, String> {
        let mut command = match &self.own {
            None => Command::new(&self.program),
            Some((loader, libraries)) => {
                let mut command = Command::new(loader);
                command.args([OsStr::new("--library-path"), libraries.as_ref(), self.program.as_ref()]);
                command
            }
        };
        command.args(args).env_clear();
        if let Some(runtime) = runtime {
            command.env("XDG_RUNTIME_DIR", runtime);
        }
        let Output { status, stdout, stderr } =
            command.output().map_err(|error| format!("cannot run `{}`: {}", self.program.display(), plain(&error)))?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        let said = [stdout, stderr].concat();
        let said = String::from_utf8_lossy(&said);
        Err(format!("`criu {}` says: {}", args.join(" "), last_error(&said)))
    }

    /// Makes a kit of it in `folder`, unless there is one already, and says where. Kits of other releases are removed.
    pub fn kit(&self, folder: &Path) -> Result<PathBuf, String> {
        let failed = |error: io::Error| format!("cannot make `{}`: {}", folder.display(), plain(&error));
        let found = fs::metadata(&self.program).map_err(failed)?;
        let kit = folder.join(format!("{:x}-{:x}-{:x}", found.mtime(), found.len(), found.ino()));
        if kit.is_dir() {
            return Ok(kit);
        }
        let parts = self.parts()?;
        let make = || -> io::Result<()> {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // A star's root has to pass through it; the data folder around it lets nobody in.
            DirBuilder::new().mode(0o755).create(folder)?;
            let new = folder.join("new");
            DirBuilder::new().mode(0o755).create(&new)?;
            for (name, from) in parts {
                let to = new.join(name);
                fs::copy(from, &to)?;
                fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
            }
            for folder in [folder, &new] {
                fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
            }
            fs::rename(&new, &kit)
        };
        make().map_err(failed)?;
        Ok(kit)
    }

    /// The program, its loader and its libraries, by the names they have in a kit.
    fn parts(&self) -> Result<Vec<(String, PathBuf)>, String> {
        let mut command = match &self.own {
            // Its loader says what it would load.
            None => Command::new(&self.program),
            Some((loader, libraries)) => {
                let mut command = Command::new(loader);
                command.args([OsStr::new("--library-path"), libraries.as_ref(), self.program.as_ref()]);
                command
            }
        };
        let failed = |why: String| format!("the libraries of `{}` are not known: {why}", self.program.display());
        let listed = command.env_clear().env("LD_TRACE_LOADED_OBJECTS", "1").output();
        let listed = listed.map_err(|error| failed(plain(&error)))?;
        let mut parts = vec![(PROGRAM.to_owned(), self.program.clone())];
        let mut loader = self.own.as_ref().map(|(loader, _)| loader.clone());
        for line in String::from_utf8_lossy(&listed.stdout).lines() {
            let line = line.trim().rsplit_once(" (0x").map_or(line.trim(), |(line, _)| line);
            match line.split_once(" => ") {
                Some((name, "not found")) => return Err(failed(format!("`{name}` is missing"))),
                Some((name, path)) if !name.contains('/') => parts.push((name.to_owned(), PathBuf::from(path))),
                Some(_) => {}
                None if line.starts_with('/') && loader.is_none() => loader = Some(PathBuf::from(line)),
                None => {}
            }
        }
        let loader = loader.ok_or_else(|| failed("it tells none".to_owned()))?;
        parts.push((LOADER.to_owned(), loader));
        Ok(parts)
    }

    /// Writes down for runs within a star what it finds out of this kernel outside of one.
    pub fn write_kernel_facts(&self, folder: &Path) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot write `{}`: {}", folder.display(), plain(&error));
        for memory in MEMORY_FOLDERS {
            let place = Path::new(memory).join(format!(".rads-criu-{}", std::process::id()));
            if DirBuilder::new().mode(0o700).create(&place).is_err() {
                continue;
            }
            let facts = self.run(&["check", "--unprivileged"], Some(&place));
            let facts = facts.map(|_| fs::read(place.join(KERNEL_FACTS)));
            let _ = fs::remove_dir_all(&place);
            if let Ok(facts) = facts? {
                return fs::write(folder.join(KERNEL_FACTS), facts).map_err(failed);
            }
        }
        Err(format!("CRIU leaves no facts in {}: is one of them a memory file system?", MEMORY_FOLDERS.join(" or ")))
    }
}

/// The path itself, if a program of the kernel's own form is there.
fn is_program(path: PathBuf) -> Result<PathBuf, String> {
    let mut start = [0; 4];
    let read = File::open(&path).and_then(|mut file| file.read_exact(&mut start));
    let shown = path.display();
    match read {
        Ok(()) if &start == b"\x7fELF" => Ok(path),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            Err(format!("`{shown}` cannot be read: {}", plain(&error)))
        }
        _ => Err(format!("`{shown}` is not CRIU's program itself")),
    }
}

fn asks_too_much_of_sockets() -> bool {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None);
    socket.is_ok_and(|socket| rustix::net::sockopt::socket_passcred(socket) == Err(Errno::OPNOTSUPP))
}

/// The last error that CRIU tells of, without its time and place, before it says that it failed; else its last line.
pub fn last_error(said: &str) -> String {
    let late = |line: &str| line.ends_with("FAILED.") || line.contains("Killing processes because");
    let tells = |line: &&str| line.contains("Error (") && !late(line);
    let error = said.lines().rev().find(tells).or(said.lines().rev().find(|line| !line.is_empty()));
    let error = error.unwrap_or("nothing").trim();
    let what = error.split_once("): ").filter(|_| error.contains("Error (")).map_or(error, |(_, what)| what);
    what.trim_end_matches('.').escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told_without_its_place() {
        let check = |said: &str, expected: &str| assert_eq!(last_error(said), expected);
        check("", "nothing");
        check("criu: unrecognized option '--unprivileged'\n", "criu: unrecognized option \\'--unprivileged\\'");
        let said = "(00.1) Error (criu/vdso.c:632): vdso: Unexpected rt vDSO area bounds\n(00.1) Looks bad.\n";
        check(said, "vdso: Unexpected rt vDSO area bounds");
        let said = "(00.1) Error (criu/a.c:1): first\n(00.2) Error (criu/b.c:2): why.\n(00.3) Error (criu/c.c:3): Dumping FAILED.\n";
        check(said, "why");
    }

    #[test]
    fn what_is_not_criu_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |place: &Path| Criu::at(place).unwrap_err();
        assert!(refused(Path::new("criu")).contains("not an absolute path"));
        assert!(refused(folder.path()).contains("has no `usr/sbin/criu`"));
        assert!(refused(&folder.path().join("nothing")).contains("no such file"));
        let script = folder.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        assert!(refused(&script).contains("not CRIU's program itself"));
    }
}
