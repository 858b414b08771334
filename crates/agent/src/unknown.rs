//! What is said of names that nobody knows.

use model::{AppKey, Code, Problem, ServiceKey, StarId};

pub(crate) fn no_app(app: &AppKey) -> Problem {
    Problem::new(Code::NotFound, format!("no app `{app}`")).help("`rads c status` lists what there is")
}

pub(crate) fn no_service(service: &ServiceKey) -> Problem {
    Problem::new(Code::NotFound, format!("no service `{service}`")).help("`rads c status` lists what there is")
}

pub(crate) fn no_star(star: StarId) -> Problem {
    Problem::new(Code::NotFound, format!("no star `{star}`")).help("`rads c list` lists what there is")
}
