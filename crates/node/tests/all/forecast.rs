//! What is said beforehand of putting an app is what comes of it.

use std::collections::BTreeMap;

use model::{AppSpec, Bytes, Duty, NodeId, Reserve, ServiceSpec, StarPhase, Update, UpdateStrategy, WallTime};
use node::{Event, Forecast};
use state::Command;

use crate::desk::{Desk, settle, web, with_room};

/// What the clock of a desk says.
const NOW: WallTime = WallTime(1_000_000);

fn app(services: Vec<(&str, ServiceSpec)>) -> AppSpec {
    let services = services.into_iter().map(|(name, spec)| (name.parse().unwrap(), spec)).collect();
    AppSpec { app: "shop".parse().unwrap(), services }
}

fn placed(stars: u32, placement: &str) -> ServiceSpec {
    ServiceSpec { placement: serde_json::from_str(placement).unwrap(), ..web(stars, Vec::new()) }
}

fn keeping(stars: u32, megabytes: u64) -> ServiceSpec {
    let mut spec = web(stars, Vec::new());
    spec.template.reserve = Reserve { memory: Bytes::mib(megabytes), ..Reserve::default() };
    spec
}

fn forecast(desk: &Desk, spec: &AppSpec) -> Forecast {
    desk.node.forecast(spec, None, NOW)
}

/// How many stars of a service there are on each machine.
fn there(desk: &Desk, service: &str) -> BTreeMap<NodeId, u32> {
    let mut there = BTreeMap::new();
    let key = service.parse().unwrap();
    for star in desk.node.state().stars_of(&key).filter(|star| star.phase != StarPhase::Ended) {
        *there.entry(star.node).or_default() += 1;
    }
    there
}

/// Puts an app, and holds what was said of it against what came: stars that come are those that are there then and were not.
fn check(desk: &mut Desk, spec: AppSpec, replaced: &[&str]) {
    let said = forecast(desk, &spec);
    assert_eq!(said.refused, None);
    let before: BTreeMap<_, _> = spec.services.keys().map(|name| (name.clone(), there(desk, name.as_str()))).collect();
    desk.write(Command::PutApp { spec: spec.clone(), base: None, wall: NOW });
    settle(desk);
    for name in spec.services.keys() {
        let mut came = there(desk, name.as_str());
        if !replaced.contains(&name.as_str()) {
            for (node, stars) in &before[name] {
                let came = came.entry(*node).or_default();
                *came = came.saturating_sub(*stars);
            }
        }
        came.retain(|_, stars| *stars > 0);
        let of_service = said.services.iter().find(|service| service.service == *name);
        let comes = of_service.into_iter().flat_map(|service| &service.comes);
        let told: BTreeMap<NodeId, u32> = comes.map(|comes| (comes.node, comes.stars)).collect();
        assert_eq!(told, came, "{name}: {said:?}");
    }
}

#[test]
fn stars_come_where_it_was_said_they_would() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    // Two that are new, the second spread over what the first leaves.
    let (other, mut changed) = (placed(1, "{}"), placed(4, "{}"));
    check(&mut desk, app(vec![("web", changed.clone()), ("other", other.clone())]), &[]);
    // More of one.
    changed.instances = 7;
    check(&mut desk, app(vec![("web", changed.clone()), ("other", other.clone())]), &[]);
    // Nothing of it comes anew.
    assert_eq!(forecast(&desk, &app(vec![("web", changed.clone()), ("other", other.clone())])).services, []);
    // Another program: all of them come anew, whatever the way.
    let env = |spec: &mut ServiceSpec, value: &str| {
        spec.template.env.insert("V".to_owned(), value.to_owned());
    };
    env(&mut changed, "1");
    changed.update = Update { strategy: UpdateStrategy::Rolling, ..changed.update };
    let said = forecast(&desk, &app(vec![("web", changed.clone()), ("other", other.clone())]));
    assert_eq!(said.services.len(), 1);
    assert_eq!(said.services[0].comes.iter().map(|comes| comes.stars).sum::<u32>(), 7);
    check(&mut desk, app(vec![("web", changed.clone()), ("other", other.clone())]), &["web"]);
    // It moves.
    let moved = ServiceSpec { placement: placed(0, r#"{"require":["node = c"]}"#).placement, ..changed.clone() };
    let stayed = there(&desk, "web")[&NodeId(3)];
    let said = forecast(&desk, &app(vec![("web", moved.clone()), ("other", other.clone())]));
    assert_eq!((said.services[0].comes[0].node, said.services[0].comes[0].stars), (NodeId(3), 7 - stayed));
    check(&mut desk, app(vec![("web", moved), ("other", other)]), &[]);
}

#[test]
fn what_has_no_room_is_told_with_the_reason() {
    let mut desk = with_room();
    desk.tell(Event::Leads { leads: true });
    let spec = app(vec![("web", keeping(5, 600))]);
    let said = forecast(&desk, &spec);
    let [service] = &said.services[..] else { panic!("{said:?}") };
    assert_eq!((service.comes.len(), service.homeless), (3, 2), "{service:?}");
    assert!(service.problem.as_ref().unwrap().contains("600 MiB"), "{service:?}");
    check(&mut desk, spec, &[]);
    // What goes leaves its room to what comes in its place.
    let spec = AppSpec { app: "bar".parse().unwrap(), ..app(vec![("other", keeping(3, 600))]) };
    let said = forecast(&desk, &spec);
    assert_eq!(said.services[0].homeless, 3, "`web` is of another app and is there still: {said:?}");
    desk.write(Command::SetDuty { node: NodeId(3), duty: Duty::Cordoned, wall: NOW });
    settle(&mut desk);
    let per_node = app(vec![("one", placed(3, r#"{"per_node":1}"#))]);
    let said = forecast(&desk, &per_node);
    let problem = said.services[0].problem.clone().unwrap();
    assert_eq!(
        problem,
        "no node takes a star of `one`: 2 nodes have 1 of its stars already (`per_node`); 1 node is cordoned"
    );
}

#[test]
fn what_goes_of_an_app_leaves_its_room_and_its_places() {
    let mut desk = with_room();
    desk.tell(Event::Leads { leads: true });
    check(&mut desk, app(vec![("web", keeping(3, 600))]), &[]);
    // The machines are full of what goes: of a service that is called otherwise now.
    check(&mut desk, app(vec![("site", keeping(3, 600))]), &[]);
    assert_eq!((there(&desk, "web").len(), there(&desk, "site").len()), (0, 3));
    // Or of one that becomes smaller.
    check(&mut desk, app(vec![("other", keeping(2, 600)), ("site", keeping(1, 600))]), &[]);
    assert_eq!((there(&desk, "other").len(), there(&desk, "site").len()), (2, 1));
}

#[test]
fn stars_for_which_others_give_way_are_told_apart() {
    let mut desk = with_room();
    desk.tell(Event::Leads { leads: true });
    let low =
        ServiceSpec { placement: placed(0, r#"{"priority":10,"disruptions":"100%"}"#).placement, ..keeping(3, 600) };
    check(&mut desk, app(vec![("low", low)]), &[]);
    let usual = AppSpec { app: "bar".parse().unwrap(), ..app(vec![("usual", keeping(2, 600))]) };
    let said = forecast(&desk, &usual);
    let way: Vec<(String, u32)> =
        said.services[0].gives_way.iter().map(|way| (way.service.to_string(), way.stars)).collect();
    assert_eq!((way, said.services[0].homeless), (vec![("low".to_owned(), 2)], 0), "{said:?}");
    assert_eq!(said.services[0].comes.iter().map(|comes| comes.stars).sum::<u32>(), 2);
    let lower = ServiceSpec { placement: placed(0, r#"{"priority":5}"#).placement, ..keeping(2, 600) };
    let said = forecast(&desk, &AppSpec { app: "bar".parse().unwrap(), ..app(vec![("lower", lower)]) });
    assert!(said.services[0].gives_way.is_empty() && said.services[0].problem.is_some(), "{said:?}");
}

#[test]
fn a_roll_out_that_has_no_room_to_begin_is_told() {
    let mut desk = with_room();
    desk.tell(Event::Leads { leads: true });
    check(&mut desk, app(vec![("page", keeping(3, 600))]), &[]);
    let mut next = keeping(3, 600);
    next.template.env.insert("V".to_owned(), "2".to_owned());
    let said = forecast(&desk, &app(vec![("page", next.clone())]));
    assert!(said.services[0].stuck.as_ref().unwrap().contains("600 MiB"), "{said:?}");
    next.update = serde_json::from_str(r#"{"max_surge":"0","max_unavailable":"1"}"#).unwrap();
    let spec = app(vec![("page", next)]);
    assert_eq!(forecast(&desk, &spec).services[0].stuck, None);
    check(&mut desk, spec, &["page"]);
}

#[test]
fn services_that_are_apart_are_foretold_apart() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    let apart = r#"{"apart_from":["web"]}"#;
    let spec = app(vec![("web", placed(2, r#"{"per_node":1}"#)), ("zoo", placed(3, apart))]);
    check(&mut desk, spec, &[]);
    let (web, zoo) = (there(&desk, "web"), there(&desk, "zoo"));
    assert_eq!((web.len(), zoo.len()), (2, 1), "{web:?} {zoo:?}");
}

#[test]
fn stars_that_were_about_to_be_replaced_stay_when_their_version_comes_back() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    let web = placed(4, "{}");
    check(&mut desk, app(vec![("page", web.clone())]), &[]);
    let mut next = web.clone();
    next.template.env.insert("V".to_owned(), "2".to_owned());
    let spec = app(vec![("page", next)]);
    desk.write(Command::PutApp { spec, base: None, wall: NOW });
    assert_eq!(forecast(&desk, &app(vec![("page", web)])).services, [], "its stars run still");
}

#[test]
fn what_would_be_refused_is_said_to_be() {
    let mut desk = Desk::new(0, false);
    desk.tell(Event::Leads { leads: true });
    let said = forecast(&desk, &app(vec![("web", placed(1, r#"{"require":["node = z"]}"#))]));
    assert!(said.refused.as_ref().unwrap().message.contains("`node = z` does not hold"), "{said:?}");
    let said = forecast(&desk, &app(vec![("web", placed(1, r#"{"reservation":"none"}"#))]));
    assert!(said.refused.is_some() && said.services.is_empty(), "{said:?}");
    assert_eq!(there(&desk, "web").len(), 0);
}
