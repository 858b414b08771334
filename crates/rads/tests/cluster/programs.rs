//! A star on a worker deploys: its agent has it written, and passes on what another machine answers.

use std::time::Duration;

use crate::rig::{Rig, possible};

const ORDERS: &str = r#"
turbo star = constellation.create({ script: "once.rads", placement: { require: ["node = n1"] } });
echo(star.wait(60).reason, star.output().trim(), star.status().node);
star.delete();
try { constellation.namespace("dev", {}); } catch (e) { echo(e.message); }
try { constellation.create({ script: "once.rads", access: "admin" }); } catch (e) { echo(e.message); }
echo("done");
sleep(1000000);
"#;

#[test]
#[ignore = "ten seconds: `cargo xtask test cluster`"]
fn a_star_on_a_worker_deploys_elsewhere_and_is_no_more_than_its_machine() {
    if !possible() {
        return;
    }
    let rig = Rig::new(2);
    rig.start(0);
    rig.init(0, &[]);
    let worker = rig.machine(0).json(&["c", "token", "create", "--role", "worker"]);
    rig.start(1);
    rig.join(1, worker["token"].as_str().unwrap(), &[]);
    rig.all_alive(2);
    let (first, second) = (&rig.machine(0).name, &rig.machine(1).name);
    rig.file("orders.rads", &ORDERS.replace("n1", first));
    rig.file("once.rads", "echo(\"well\");");
    let options =
        |access: &str, node: &str| format!("{access}, ram_mb: 64, placement: {{require: [\"node = {node}\"]}}");
    let admin = "access: {role: \"admin\", namespaces: \"*\"}";
    let orders = options(admin, second);
    let (root, plain) = (options(admin, first), options("access: \"operator\"", first));
    let app = rig.file(
        "app.rads",
        &format!(
            "constellation.deploy(\"orders\", {{script: \"orders.rads\", assets: [\"once.rads\"], {orders}}});\n\
             constellation.deploy(\"root\", {{command: [\"sleep\", \"1000\"], {root}}});\n\
             constellation.deploy(\"plain\", {{command: [\"sleep\", \"1000\"], {plain}}});\n"
        ),
    );
    rig.machine(0).rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
    rig.await_ready(0, 3, &[], Duration::from_secs(30));
    let said = || rig.machine(0).rads(&["c", "logs", "orders"]).out;
    rig.wait_for("it to be done", || said().contains("| done"));
    let said = said();
    assert!(said.contains(&format!("| exit code 0 well {first}\n")), "{said}");
    assert!(said.contains("may not say which namespaces there are: it is a worker"), "{said}");
    assert!(
        said.contains("would be admin of its own namespace, and who asks for it is operator of all namespaces"),
        "{said}"
    );
    let audit = rig.machine(0).rads(&["c", "audit"]).ok();
    assert!(audit.contains(&format!("service orders on {second}: put app `once-")), "{audit}");
    // Who is in a star has what it has. A worker is an operator, and no more.
    let enter = |star: &str| rig.machine(1).rads(&["c", "exec", star, "--", "/bin/sh", "-c", "exit 7"]);
    assert_eq!(enter("plain-1").code, 7);
    let refused = enter("root-1");
    assert!(refused.code != 7 && refused.err.contains("may not go into this star"), "{refused:?}");
}
