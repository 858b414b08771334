//! Scripts that serve nobody: files, environment, time, tasks, databases, and how a program ends.

mod common;

use common::{Script, check};

#[test]
fn files_are_written_read_and_removed() {
    check(
        r#"
        echo(io.write_file("a.txt", "one\n"));
        io.append_file("a.txt", "two\n");
        echo(io.read_file("a.txt") + io.file_size("a.txt") + io.file_exists("a.txt"));
        io.write_file("b.bin", base64.decode_bytes("AP8="));
        echo(base64.encode(io.read_bytes("b.bin")));
        fs.mkdir("d/e", recursive: true);
        fs.copy("a.txt", "d/c.txt");
        fs.rename("b.bin", "d/b.bin");
        fs.move("d/b.bin", "d/e/b.bin");
        fs.chmod("d/c.txt", 0x180);
        echo(fs.list_dir("d"));
        turbo about = fs.stat("d/c.txt");
        echo(about.size + " " + about.is_file + " " + about.is_dir + " " + about.mode);
        echo(fs.is_dir("d") + " " + fs.is_file("d") + " " + fs.exists("nothing"));
        fs.remove("d", recursive: true);
        io.delete_file("a.txt");
        echo(fs.readdir("."));
        "#,
        "true\none\ntwo\n8true\nAP8=\n[c.txt, e]\n8 true false 384\ntrue false false\n[main.rads]\n",
    );
}

#[test]
fn what_files_refuse_is_an_error_object_that_says_why() {
    check(
        r#"
        blast fails(f) { try { f(); echo("no error"); } catch (e) { echo(e.kind + " " + e.message); } }
        fails(blast () { io.read_file("none"); });
        fails(blast () { io.read_file(7); });
        fails(blast () { fs.list_dir("main.rads"); });
        fails(blast () { fs.mkdir("a/b"); });
        fails(blast () { fs.mkdir("x", recursve: true); });
        fails(blast () { io.write_file("a", 7); });
        fs.mkdir("full");
        io.write_file("full/file", "");
        fails(blast () { fs.rmdir("full"); });
        fails(blast () { fs.remove("full"); });
        fails(blast () { fs.rename("none", "other"); });
        io.write_file("bytes", base64.decode_bytes("/w=="));
        fails(blast () { io.read_file("bytes"); });
        try { io.read_file("none"); } catch (e) { echo(e.data.code); }
        "#,
        "io cannot read `none`: no such file or folder\n\
         type `path` must be a string, not an integer\n\
         io cannot list `main.rads`: not a folder\n\
         io cannot make folder `a/b`: no such file or folder\n\
         value unknown option `recursve` (did you mean `recursive`?)\n\
         type `content` must be a string or bytes, not an integer\n\
         io cannot remove folder `full`: the folder is not empty\n\
         io cannot remove `full`: the folder is not empty\n\
         io cannot rename `none` to `other`: no such file or folder\n\
         io `bytes` is not UTF-8 text (`io.read_bytes` reads any file)\n\
         not_found\n",
    );
}

#[test]
fn the_environment_is_what_the_program_was_given() {
    let script = Script::new(
        r#"
        echo(env.get("COLOUR") + " " + env.get("NONE") + " " + env.get("NONE", "none"));
        echo(env.all().COLOUR);
        echo(env.args());
        loop (true) {
            turbo line = io.read_line();
            if (line == null) { break; }
            echo("<" + line + ">");
        }
        "#,
    );
    let ended = script.env("COLOUR", "blue").args(&["a", "b c"]).stdin("one\ntwo\r\n\nlast").run();
    let expected = "blue null none\nblue\n[a, b c]\n<one>\n<two>\n<>\n<last>\n";
    assert_eq!((ended.code, ended.out.as_str()), (0, expected), "{ended:?}");
}

#[test]
fn the_text_formats_are_reachable() {
    check(
        r#"
        echo(url.encode("a b/ö") + " " + url.decode("a%20b"));
        turbo u = url.parse("http://example.org:81/p/q?a=1&b=x+y#top");
        echo(u.scheme + " " + u.host + " " + u.port + " " + u.path + " " + u.params.b + " " + u.fragment);
        echo(base64.encode("foob") + " " + base64.decode("Zm9vYg"));
        echo(html.escape("<a href='x'>") + net.html_escape("&"));
        echo(str.length(crypto.random_hex(16)) + " " + str.length(crypto.uuid()));
        turbo form = net.form_parse("name=Ann+B&x=%26&x=last");
        echo(net.form_get(form, "name") + form.x + net.form_get(form, "none") + net.param_get(form, "none", "-"));
        echo(net.cookie_get({ sid: "1" }, "sid") + " " + net.cookie_set("sid", "1", same_site: "strict", secure: true));
        echo(net.template_render("{{ a }} {{{ a }}}{{#each list}} {{ name }}{{/each}}", { a: "<", list: [{ name: "x" }] }));
        echo(time.iso(0) + " " + (time.now_ms() > 1700000000000) + " " + (time.now() > 1700000000.0));
        turbo start = time.monotonic_ms();
        sleep(5);
        echo(time.monotonic_ms() - start >= 5);
        "#,
        "a%20b%2F%C3%B6 a b\nhttp example.org 81 /p/q x y top\nZm9vYg== foob\n\
         &lt;a href=&#39;x&#39;&gt;&amp;\n32 36\nAnn Blastnull-\n\
         1 sid=1; Path=/; HttpOnly; Secure; SameSite=Strict\n&lt; < x\n1970-01-01T00:00:00.000Z true true\ntrue\n",
    );
}

#[test]
fn async_utils_wait_for_what_runs_beside_them() {
    check(
        r#"
        blast after(ms, value) { return blast () { sleep(ms); return value; }; }
        turbo start = time.monotonic_ms();
        echo(async_utils.parallel([after(200, "slow"), after(150, "quick"), after(180, "mid")]));
        echo(time.monotonic_ms() - start < 500);
        echo(async_utils.series([after(1, 1), after(1, 2)]));
        turbo seen = [];
        async_utils.each([3, 1, 2], blast (n) { sleep(n * 20); seen.push(n); });
        echo(seen);
        turbo tries = 0;
        echo(async_utils.retry(blast () { tries = tries + 1; if (tries < 2) { throw "again"; } return "done"; }, 3) + tries);
        echo(async_utils.timeout(after(1, "in time"), 5000));
        try { async_utils.timeout(after(60000, "late"), 20); } catch (e) { echo(e.kind + ": " + e.message); }
        try { async_utils.timeout(blast () { throw "inner"; }, 5000); } catch (e) { echo("caught " + e); }
        async_utils.delay(1, blast () { echo("delayed"); });
        async_utils.parallel([after(1, 7)], blast (results) { echo(results[0]); });
        "#,
        "[slow, quick, mid]\ntrue\n[1, 2]\n[1, 2, 3]\ndone2\nin time\ntimeout: not done after 20 ms\ncaught inner\ndelayed\n7\n",
    );
}

#[test]
fn a_database_keeps_rows_and_tells_its_mistakes() {
    check(
        r#"
        turbo d = db.open("a.db");
        db.exec(d, "create table p (id integer primary key, name text, score real, raw blob)");
        echo(db.exec(d, "insert into p (name, score) values (?, ?)", ["Ann", 1.5]));
        echo(d.exec("insert into p (name, raw) values (:name, :raw)", { name: "Bob", raw: base64.decode_bytes("AP8=") }).last_id);
        turbo rows = d.query("select name, score from p order by id");
        echo(rows[0].name + rows[0].score + rows[1].score + rows.length);
        echo(base64.encode(d.query("select raw from p where id = ?", [2])[0].raw));
        echo(db.query("select count(*) as n from p")[0].n);
        blast fails(f) { try { f(); echo("no error"); } catch (e) { echo(e.kind + ": " + e.message); } }
        fails(blast () { d.query("select * from nowhere"); });
        fails(blast () { d.query("select ?", []); });
        fails(blast () { d.query("select ?", [[1]]); });
        fails(blast () { db.open("no/such/folder/a.db"); });
        d.close();
        fails(blast () { d.query("select 1"); });
        echo(db.open("a.db").query("select count(*) as n from p")[0].n);
        "#,
        "{changes: 1, last_id: 1}\n2\nAnn1.5null2\nAP8=\n2\n\
         db: no such table: nowhere\ndb: the statement has 1 parameters, 0 were given\n\
         db: a parameter cannot be a value of kind array (`json.stringify` makes text)\n\
         db: cannot open `no/such/folder/a.db`: its folder does not exist or is not writable\n\
         db: the database is not open (`db.open(path)` opens it)\n2\n",
    );
}

#[test]
fn a_writer_waits_for_another_without_holding_up_the_rest() {
    check(
        r#"
        turbo a = db.open("a.db");
        turbo b = db.open("a.db");
        a.exec("create table t (n integer)");
        a.exec("begin immediate");
        turbo writing = spawn b.exec("insert into t values (?)", [1]);
        sleep(20);
        echo("others go on");
        a.exec("commit");
        echo((await writing).changes);
        "#,
        "others go on\n1\n",
    );
}

#[test]
fn a_program_ends_when_nothing_is_left_to_do() {
    check("echo(1);", "1\n");
    check("blast main() { spawn later(); echo(1); }\nblast later() { sleep(20); echo(2); }", "1\n2\n");
    let ended = Script::new("blast main() { echo(1); process.exit(7); echo(2); }").run();
    assert_eq!((ended.code, ended.out.as_str()), (7, "1\n"));
}

#[test]
fn an_uncaught_error_is_a_trace_and_exit_code_1() {
    let ended = Script::new("blast inner() { return io.read_file(\"none\"); }\nblast main() {\n  inner();\n}\n").run();
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    for part in
        ["error: cannot read `none`: no such file or folder (io)", "at inner (main.rads:1)", "at main (main.rads:3)"]
    {
        assert!(ended.err.contains(part), "`{part}` in {}", ended.err);
    }
}

#[test]
fn an_error_in_a_task_that_nobody_awaits_is_not_lost() {
    let ended =
        Script::new("blast later() { sleep(1); throw \"lost?\"; }\nspawn later();\nsleep(50);\necho(\"end\");").run();
    assert_eq!((ended.code, ended.out.as_str()), (1, "end\n"));
    assert!(ended.err.contains("lost?"), "{}", ended.err);
}

#[test]
fn a_program_that_does_not_compile_is_told_with_its_line() {
    let ended = Script::new("echo(1);\nturbo x = nowhere;\necho(io.raed_file(\"a\"));\n").run();
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    for part in ["main.rads:2", "nowhere", "main.rads:3", "read_file"] {
        assert!(ended.err.contains(part), "`{part}` in {}", ended.err);
    }
}

#[test]
fn imports_are_read_below_the_root_only() {
    let script = Script::new("import \"lib/util.rads\";\necho(util.twice(4));\n");
    let ended = script.file("lib/util.rads", "export blast twice(n) { return n * 2; }").run();
    assert_eq!((ended.code, ended.out.as_str()), (0, "8\n"), "{}", ended.err);
    let outside = Script::new("import \"../../etc/passwd\";\n").run();
    assert_eq!(outside.code, 1);
}

#[test]
fn log_lines_are_json() {
    let ended = Script::new("log.info(\"started\", { port: 80 });\nlog.error(\"a \\\"b\\\"\");").run();
    let lines: Vec<&str> = ended.err.lines().collect();
    assert!(lines[0].ends_with(r#""level":"info","message":"started","port":80}"#), "{ended:?}");
    assert!(lines[1].ends_with(r#""level":"error","message":"a \"b\""}"#), "{ended:?}");
}
