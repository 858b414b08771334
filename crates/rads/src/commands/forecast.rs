//! Where the stars of an app would come to, as `plan` and `up` tell it before anything is done.

use api::{Comes, Forecast, GivesWay, ServiceForecast};

use crate::moment::clock_time;
use crate::screen;

/// Machines told one by one.
const TOLD_MAX: usize = 8;

/// Line by line; nothing where there is nothing to choose: on a machine that is alone, and takes them all.
pub(super) fn lines(forecast: &Forecast) -> Vec<String> {
    let told: Vec<String> = forecast.services.iter().filter_map(service).collect();
    match told.is_empty() {
        true => told,
        false => [vec!["what would come of it:".to_owned()], told].concat(),
    }
}

fn service(forecast: &ServiceForecast) -> Option<String> {
    let ServiceForecast { service, comes, due, homeless, gives_way, stuck, problem, beyond } = forecast;
    let name = |comes: &Comes| comes.name.as_ref().map(ToString::to_string);
    let mut parts: Vec<String> =
        comes.iter().take(TOLD_MAX).filter_map(|comes| Some(format!("{} to {}", comes.stars, name(comes)?))).collect();
    let others = comes.get(TOLD_MAX..).unwrap_or_default();
    if !others.is_empty() {
        let stars: u32 = others.iter().map(|comes| comes.stars).sum();
        parts.push(format!("{stars} to {}", screen::count(others.len(), "other node")));
    }
    // Where the first have no place, the next have none.
    let homeless = if *homeless > 0 { homeless.saturating_add(*beyond) } else { 0 };
    let is_beyond = *beyond > 0 && homeless == 0 && comes.iter().any(|comes| comes.name.is_some());
    parts.extend(is_beyond.then(|| format!("{beyond} more, which were not looked at")));
    let mut text = parts.join(", ");
    let giving: Vec<String> = gives_way
        .iter()
        .map(|GivesWay { service, stars }| format!("{} of `{service}`", screen::count(*stars as usize, "star")))
        .collect();
    if !giving.is_empty() {
        let verb = if matches!(&gives_way[..], [GivesWay { stars: 1, .. }]) { "gives" } else { "give" };
        // A machine that is alone is not named.
        text = match (text.is_empty(), giving.join(", ")) {
            (true, giving) => format!("{giving} {verb} way for it"),
            (false, giving) => format!("{text}, for which {giving} {verb} way"),
        };
    }
    if homeless > 0 {
        let why = problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
        let stars = screen::count(homeless as usize, "star");
        let nowhere = format!("{stars} nowhere, for now{why}");
        text = if text.is_empty() { nowhere } else { format!("{text}; {nowhere}") };
    }
    if let Some(stuck) = stuck {
        text = format!(
            "{text}; but none has room beside those that are there: {stuck}; `update: {{max_surge: 0, max_unavailable: 1}}` lets one go \
             first"
        );
    }
    let due = due.map(|due| format!("its next run is due at {}", clock_time(due)));
    let text = [Some(text).filter(|text| !text.is_empty()), due].into_iter().flatten().collect::<Vec<_>>().join("; ");
    (!text.is_empty()).then(|| format!("  {service}: {text}"))
}

#[cfg(test)]
mod tests {
    use model::NodeId;

    use super::*;

    fn forecast(comes: &[(Option<&str>, u32)], homeless: u32) -> Forecast {
        let comes = comes.iter().zip(1..).map(|((name, stars), node)| Comes {
            node: NodeId(node),
            name: name.map(|name| name.parse().unwrap()),
            stars: *stars,
        });
        let problem = (homeless > 0).then(|| "1 node is drained".to_owned());
        let service = "web".parse().unwrap();
        let services = vec![ServiceForecast {
            service,
            comes: comes.collect(),
            due: None,
            homeless,
            gives_way: Vec::new(),
            stuck: None,
            problem,
            beyond: 0,
        }];
        Forecast { refused: None, services }
    }

    #[test]
    fn stars_are_told_by_machine_and_those_without_one_with_the_reason() {
        let told = |forecast: &Forecast| lines(forecast).get(1).cloned();
        assert_eq!(told(&forecast(&[(Some("b"), 2), (Some("a"), 1)], 0)).unwrap(), "  web: 2 to b, 1 to a");
        let short = forecast(&[(Some("b"), 2)], 1);
        assert_eq!(told(&short).unwrap(), "  web: 2 to b; 1 star nowhere, for now: 1 node is drained");
        assert_eq!(told(&forecast(&[], 3)).unwrap(), "  web: 3 stars nowhere, for now: 1 node is drained");
        let many: Vec<_> = (0..10).map(|_| (Some("n"), 1)).collect();
        assert!(told(&forecast(&many, 0)).unwrap().ends_with("1 to n, 2 to 2 other nodes"));
        assert_eq!(lines(&forecast(&[(None, 3)], 0)), Vec::<String>::new(), "a machine that is alone");
    }
}
