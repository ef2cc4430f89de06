//! The status program: what it tells of a running daemon, over HTTP and on its page, and who gets no answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::bed::{Bed, create};
use crate::support::daemon::{Daemon, Files, Listed, config};
use crate::support::fake::Fault;
use crate::support::place::Place;
use crate::support::real::{self, RealMember};
use crate::support::wait::{self, LONG};
use crate::support::web::{Status, promtool};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// A bed with a status program on its read-only socket, and the place of that socket.
fn bed(count: usize) -> (Bed, Status, Place) {
    let place = Place::new();
    let socket = place.path("readonly.sock");
    let bed = Bed::with(count, "", &["-r", &socket.display().to_string()]);
    let status = Status::start(&place, &socket);
    status.wait("/readyz", |answer| answer.status == 200);
    (bed, status, place)
}

/// Gives `text` to the parser of Prometheus' own client library.
fn read_as_openmetrics(text: &str) {
    let script = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
                  assert len(list(read(sys.stdin.read()))) > 20";
    let mut child = Command::new(real::python())
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the reader can be started");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let done = child.wait_with_output().expect("it ends");
    assert!(
        done.status.success(),
        "{}\n{text}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn metrics_are_what_promtool_and_prometheus_want() {
    let (bed, status, _place) = bed(2);
    bed.call("one");
    status.wait("/metrics", |answer| {
        answer
            .body
            .contains("rtp_cluster_sessions_bound_total{cluster=\"C1\"} 1\n")
    });
    let text = status.get("/metrics");
    assert!(
        text.head.contains("Content-Type: text/plain; version=0.0.4"),
        "{}",
        text.head
    );
    promtool(&["check", "metrics"], &text.body);
    promtool(
        &["check", "metrics"],
        bed.daemon.admin_ok("stats --prometheus").trim_end_matches("OK\n"),
    );
    let pid = bed.daemon.pid();
    assert!(
        text.body.contains("\nrtp_cluster_process_cpu_seconds_total "),
        "of the daemon, {pid}"
    );
    assert!(
        text.body.contains("\nprocess_resident_memory_bytes "),
        "and of itself"
    );
    let open = status.get_with(
        "/metrics",
        "Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n",
    );
    assert!(
        open.head.contains("Content-Type: application/openmetrics-text"),
        "{}",
        open.head
    );
    read_as_openmetrics(&open.body);
}

#[test]
fn the_documents_are_the_daemon_s_own() {
    let (bed, status, _place) = bed(2);
    let all = json(&status.get("/api/v1/clusters").body);
    let theirs = json(bed.daemon.admin_ok("ls --json").trim_end_matches("OK\n"));
    assert_eq!(all["clusters"][0]["settings"], theirs["clusters"][0]["settings"]);
    assert_eq!(all["clusters"][0]["members"][1]["name"], "M2");
    let one = json(&status.get("/api/v1/clusters/C1").body);
    assert_eq!(one["clusters"][0]["name"], "C1");
    assert_eq!(status.get("/api/v1/clusters/C2").status, 404);
}

#[test]
fn a_cluster_that_nobody_serves_is_not_ready_until_somebody_does() {
    let (mut bed, status, _place) = bed(1);
    bed.members[0].vanish();
    let away = status.wait("/readyz?cluster=C1", |answer| answer.status == 503);
    assert_eq!(away.body, "no member for new calls: C1\n");
    assert_eq!(status.get("/healthz").status, 200);
    bed.members[0].come_back();
    status.wait("/readyz?cluster=C1", |answer| answer.status == 200);
}

#[test]
fn a_daemon_that_is_restarted_is_found_again_and_both_are_told() {
    let (mut bed, status, _place) = bed(1);
    bed.daemon.kill();
    status.wait("/readyz", |answer| {
        answer.status == 503 && answer.body.contains("cannot connect")
    });
    assert_eq!(status.get("/healthz").status, 200);
    assert!(status.get("/metrics").body.contains("rtp_cluster_daemon_up 0\n"));
    bed.daemon.restart();
    status.wait("/readyz", |answer| answer.status == 200);
    let page = json(&status.get("/api/v1/page").body);
    let told: Vec<&str> = page["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|change| change["what"].as_str())
        .collect();
    assert!(told.contains(&"away") && told.contains(&"back"), "{told:?}");
}

#[test]
fn who_sends_no_request_gets_none_of_our_time() {
    let (_bed, status, _place) = bed(1);
    let first = |bytes: &[u8]| status.raw(bytes).lines().next().unwrap_or_default().to_owned();
    for (wanted, request) in [
        ("400", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..]),
        ("400", b"GET / HTTP/1.1\r\n\r\n"),
        ("405", b"DELETE /api/v1/clusters HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "413",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        ),
        ("404", b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("431", &[b"GET / HTTP/1.1\r\nA: ", &[b'x'; 10_000][..]].concat()),
    ] {
        let answer = first(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {wanted} ")), "{answer}");
    }
    assert!(
        status
            .raw(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            .ends_with("\r\n\r\n")
    );
    assert_eq!(status.raw(b""), "");
    // More of them than there are threads, who say nothing or half of it: the next one is served all the same.
    let mut slow: Vec<TcpStream> = (0..40)
        .map(|n| {
            let mut stream = TcpStream::connect(&status.address).expect("it listens");
            if n % 2 == 0 {
                stream.write_all(b"GET / HTT").expect("it reads");
            }
            stream
        })
        .collect();
    assert_eq!(status.get("/healthz").status, 200);
    // And each of them is told, or closed.
    for (n, stream) in slow.iter_mut().enumerate() {
        stream
            .set_read_timeout(Some(LONG))
            .expect("a time-out can be set");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("it closes");
        assert!(
            said.is_empty() || (n % 2 == 0 && said.starts_with("HTTP/1.1 408 ")),
            "{said}"
        );
    }
}

#[test]
fn curl_is_served_over_a_unix_socket_that_a_stop_removes() {
    let (bed, _, _place) = bed(1);
    let path = bed.place.path("http.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtp_cluster_status"));
    let mut status = crate::support::process::Process::start(
        "rtp_cluster_status",
        command
            .arg("-l")
            .arg(&path)
            .arg("-s")
            .arg(&bed.daemon.files().admin),
    );
    wait::until_true("a socket that listens", LONG, || {
        UnixStream::connect(&path).is_ok()
    });
    wait::until_true("curl is told that calls find a member", LONG, || {
        let done = Command::new("curl")
            .args(["-sf", "--unix-socket"])
            .arg(&path)
            .arg("http://example.org/readyz")
            .output()
            .expect("curl is installed: see tests/run.sh");
        done.status.success() && done.stdout == b"ready\n"
    });
    status.signal(Signal::TERM);
    assert!(status.wait_end(LONG).success());
    assert!(!path.exists());
}

/// The members of C1 in the page, by what stands in their row.
const ROWS: &str = "[...document.querySelectorAll('tbody tr')].map((row) => row.innerText)";

#[test]
fn the_page_shows_a_real_rtpproxy_that_is_stopped_while_it_is_open() {
    let place = Place::new();
    let members = ["r1", "r2"].map(|name| RealMember::start(&place, name));
    let listed: Vec<Listed> = members
        .iter()
        .zip(["&lt;script&gt;alert(1)&lt;/script&gt;", "media-2"])
        .map(|(member, name)| Listed::udp(name, &member.control().to_string()))
        .collect();
    let text = config(&Files::in_place(&place).control, &listed, "");
    let daemon = Daemon::start(&place, &text);
    daemon.wait_members(2, 0);
    let status = Status::start(&place, &daemon.files().admin);
    status.wait("/readyz", |answer| answer.status == 200);
    let mut pages: Vec<_> = [360, 1280, 2560]
        .map(|width| (width, status.browse(&place, "/", width)))
        .into();
    for (_, page) in &mut pages {
        page.until("document.querySelector('#verdict').innerText.startsWith('All is well')");
        page.until("document.querySelectorAll('svg.plot').length === 3");
        page.until(&format!(
            "{ROWS}.some((row) => row.includes('<script>alert(1)</script>'))"
        ));
    }
    members[1].stop();
    for (width, page) in &mut pages {
        page.until(&format!(
            "{ROWS}.some((row) => row.includes('media-2') && row.includes('offline'))"
        ));
        page.until("document.querySelector('#list').innerText.includes('media-2')");
        page.until("document.querySelector('#changes').innerText.includes('media-2')");
        page.until("document.querySelectorAll('svg.plot .fault').length > 0");
        // Nothing stands beyond the edge, and nothing that came from a name is a script.
        assert_eq!(page.eval("document.documentElement.scrollWidth"), *width);
        assert_eq!(page.eval("document.scripts.length"), 1);
        assert_eq!(page.eval("document.cookie"), "");
        page.shoot(&place.path(&format!("{width}.png")));
        assert_eq!(page.console(), Value::Array(Vec::new()), "{width}");
    }
    members[1].resume();
    for (_, page) in &mut pages {
        page.until("document.querySelector('#verdict').innerText.startsWith('All is well')");
    }
}

#[test]
fn the_page_of_one_cluster_has_its_delays_and_a_page_without_a_daemon_says_so() {
    let (mut bed, status, place) = bed(2);
    bed.members[0].on("", Fault::Late(std::time::Duration::from_millis(20)));
    bed.ask(&create("one"));
    let mut page = status.browse(&place, "/cluster/C1", 1280);
    page.until("document.querySelectorAll('svg.plot').length === 4");
    page.until("document.querySelectorAll('.legend li').length === 2");
    assert_eq!(
        page.eval("document.title")
            .as_str()
            .map(|title| title.contains("C1")),
        Some(true)
    );
    bed.daemon.kill();
    page.until("document.querySelector('#verdict').innerText.includes('does not answer')");
    assert_eq!(page.console(), Value::Array(Vec::new()));
}
