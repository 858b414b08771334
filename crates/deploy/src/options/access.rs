//! What the stars of a service may ask of the constellation.

use std::collections::BTreeSet;

use model::access::{InvalidPattern, NoRole, Pattern};
use model::{Access, Code, Problem, Role, Scope};

use super::{OptionFault, Options, Read};
use crate::setting::Setting;

const ACCESS_OPTIONS: [&str; 2] = ["role", "namespaces"];
/// As many as a grant has; who needs more has all.
const NAMESPACES_MAX: usize = 64;

/// A role, in their own namespace; or that and where it is one.
pub(super) fn access(options: &mut Options) -> Read<Option<Access>> {
    let settings = match options.take("access") {
        None => return Ok(None),
        Some(Setting::Text(text)) => {
            let role = text.parse().map_err(|no_role: NoRole| wrong_role(options, "access", &no_role))?;
            return Ok(Some(Access { role, namespaces: None }));
        }
        Some(Setting::Map(settings)) => settings,
        Some(other) => {
            let example =
                "a role such as \"operator\", or an object such as {role: \"operator\", namespaces: [\"dev-*\"]}";
            return Err(options.wrong("access", example, &other));
        }
    };
    let own = &mut Options::new(settings, &ACCESS_OPTIONS, &["access"])?;
    let Some(role) = own.text("role")? else {
        let problem = Problem::new(Code::InvalidValue, "`access` says with `role` what the stars may do");
        return Err(own.fault_of_all(problem.help("for example {role: \"operator\", namespaces: [\"dev-*\"]}")));
    };
    let role: Role = role.parse().map_err(|no_role: NoRole| wrong_role(own, "role", &no_role))?;
    Ok(Some(Access { role, namespaces: namespaces(own)? }))
}

/// One or a list of them; `*` is all there are.
fn namespaces(own: &mut Options) -> Read<Option<Scope>> {
    let texts = match own.take("namespaces") {
        None => return Ok(None),
        Some(Setting::Text(text)) => vec![text],
        Some(Setting::List(items)) => {
            let texts = items.iter().map(super::as_text).collect::<Option<Vec<_>>>();
            texts.ok_or_else(|| own.wrong("namespaces", "made of names of namespaces", &Setting::List(items)))?
        }
        Some(other) => return Err(own.wrong("namespaces", "an array such as [\"shop\", \"dev-*\"]", &other)),
    };
    if texts.iter().any(|text| text == "*") {
        return Ok(Some(Scope::All));
    }
    if !(1..=NAMESPACES_MAX).contains(&texts.len()) {
        let message = format!("`access` is for 1 to {NAMESPACES_MAX} namespaces, or for all");
        let problem = Problem::new(Code::InvalidValue, message)
            .help("leave `namespaces` out for the service's own, or say \"*\"");
        return Err(own.fault("namespaces", problem));
    }
    let pattern = |text: &String| {
        let invalid =
            |invalid: InvalidPattern| own.fault("namespaces", Problem::new(Code::InvalidValue, invalid.to_string()));
        text.parse::<Pattern>().map_err(invalid)
    };
    texts.iter().map(pattern).collect::<Read<BTreeSet<_>>>().map(|patterns| Some(Scope::of(patterns)))
}

fn wrong_role(options: &Options, name: &str, no_role: &NoRole) -> OptionFault {
    options.fault(name, Problem::new(Code::InvalidValue, no_role.to_string()))
}
