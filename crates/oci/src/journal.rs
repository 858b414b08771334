//! What is said to people and to the engines above: errors and warnings, on standard error and in the file that `--log`
//! names, as lines of text or of JSON.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use crate::cli::{Global, LogFormat};
use crate::moment::Moment;

#[derive(Debug)]
pub(crate) struct Journal {
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

impl Journal {
    pub(crate) fn open(global: &Global) -> Result<Self, String> {
        let file = match &global.log {
            None => None,
            Some(path) => {
                let open = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
                Some(open.map_err(|error| format!("cannot open the log `{}`: {error}", path.display()))?)
            }
        };
        Ok(Self { file, format: global.log_format, debug: global.debug })
    }

    pub(crate) fn error(&self, text: &str) {
        self.write("error", text);
        eprintln!("error: {text}");
    }

    pub(crate) fn warn(&self, text: &str) {
        self.write("warning", text);
        // Engines show standard error to their users; a warning is for the log where there is one.
        if self.file.is_none() {
            eprintln!("warning: {text}");
        }
    }

    pub(crate) fn debug(&self, text: &str) {
        if self.debug {
            self.write("debug", text);
            if self.file.is_none() {
                eprintln!("debug: {text}");
            }
        }
    }

    fn write(&self, level: &str, text: &str) {
        let Some(mut file) = self.file.as_ref() else { return };
        let time = Moment::now().to_string();
        let line = match self.format {
            LogFormat::Json => serde_json::json!({"level": level, "msg": text, "time": time}).to_string(),
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={text:?}"),
        };
        // One write a line, so that lines of several processes do not mix. A log that is full must not stop anything.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}
