//! Places that are kept on machines for stars to come: a reservation.
//!
//! A reservation is a service whose stars run nothing. They are placed, spread, moved and given up as any others, so what is held is
//! held by the rules that stars go by; and a service that says so ([`Placement::reservation`]) has its own stars in their places.

use serde::{Deserialize, Serialize};

use crate::app::{Program, ServiceSpec};
use crate::name::Name;
use crate::placement::Placement;
use crate::problem::{Code, Problem};
use crate::reserve::Reserve;
use crate::time::WallTime;
use crate::update::Update;

/// From when until when places are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Hold {
    /// Nothing is held before. `None`: from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<WallTime>,
    /// Then the reservation is gone; what runs in its places stays. `None`: until it is released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<WallTime>,
}

impl Hold {
    /// Whether places are held at a moment, as far as its beginning goes.
    pub fn has_begun(&self, now: WallTime) -> bool {
        self.from.is_none_or(|from| from <= now)
    }

    pub fn is_over(&self, now: WallTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// When it is next to be looked at, after a moment.
    pub fn next_turn(&self, now: WallTime) -> Option<WallTime> {
        [self.from, self.until].into_iter().flatten().filter(|at| *at > now).min()
    }
}

impl ServiceSpec {
    /// Refuses a reservation that is more than one, and what can have none.
    ///
    /// # Errors
    /// Names what stands against it.
    pub fn check_hold(&self) -> Result<(), Problem> {
        let refused = |message: String, help: &str| Err(Problem::new(Code::InvalidValue, message).help(help));
        let holds_nothing = self.template.program == Program::Nothing;
        if self.hold.is_some() != holds_nothing {
            return refused(
                "a reservation runs nothing, and what runs something is none".to_owned(),
                "leave either `hold` out, or the program",
            );
        }
        if let (Some(name), true) = (&self.placement.reservation, self.placement.every_node) {
            let message = format!("with `every_node` there is one star on each node, and `{name}` has places on some");
            return refused(message, "take one of `reservation` and `every_node` away");
        }
        let Some(hold) = self.hold else { return Ok(()) };
        let usual = Update { deadline_ms: self.update.deadline_ms, ..Update::default() };
        if self.template.reserve.is_nothing() {
            let message = "a reservation that keeps nothing holds no place".to_owned();
            return refused(message, "say with `reserve_cpu_percent` or `reserve_ram_mb` what each place is to have");
        }
        if let (Some(from), Some(until)) = (hold.from, hold.until)
            && until <= from
        {
            return refused(
                "the reservation ends before it begins".to_owned(),
                "the time it ends is after the one it begins",
            );
        }
        let stands_against = [
            (self.entry.is_some() || self.template.port.is_some(), "`port`"),
            (self.job.is_some(), "`job`"),
            (self.template.singleton, "`singleton`"),
            (self.placement.every_node, "`every_node`"),
            (self.placement.reservation.is_some(), "`reservation`: it would hold a place in another"),
            (!self.template.volumes.is_empty(), "`volumes`"),
            (self.update != usual, "`update`, but for its deadline: there is nothing to roll out"),
            (self.template.access.is_some(), "`access`"),
        ];
        match stands_against.into_iter().find(|(is, _)| *is) {
            None => Ok(()),
            Some((_, what)) => refused(format!("a reservation goes without {what}"), "leave it out"),
        }
    }
}

/// What a service that is to be in a reservation needs of it.
///
/// # Errors
/// There is none of that name, it is no reservation, or its places are too small.
pub fn check_tenant(
    service: &Name,
    placement: &Placement,
    reserve: &Reserve,
    held: Option<&ServiceSpec>,
) -> Result<(), Problem> {
    let Some(name) = &placement.reservation else { return Ok(()) };
    let Some(held) = held else {
        let problem = Problem::new(
            Code::NotFound,
            format!("service `{service}` is to be in reservation `{name}`, and there is none"),
        );
        return Err(problem.help("`rads c reservations` lists them, `rads c reserve` makes one"));
    };
    if held.hold.is_none() {
        let message =
            format!("service `{service}` is to be in reservation `{name}`, which is a service that runs something");
        return Err(Problem::new(Code::InvalidValue, message).help("`rads c reservations` lists the reservations"));
    }
    let place = &held.template.reserve;
    if !reserve.is_within(place) {
        let message = format!("a star of `{service}` keeps {reserve}, and a place of reservation `{name}` has {place}");
        return Err(Problem::new(Code::InvalidValue, message).help("let it keep less, or make the places larger"));
    }
    Ok(())
}
