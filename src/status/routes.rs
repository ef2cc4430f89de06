//! Which answer a path has, from the newest sample and the last hour. Pure.

use serde_json::{Value, json};

use super::document::{Document, count, is_online, members, number, text};
use super::history::{History, Rates, rounded};
use super::http::{self, Request, Response, TEXT};
use super::judge;
use super::metrics::{self, Format};
use super::process::Usage;

/// Members up to which the page of all clusters shows each; of more it shows those that something is wrong with, and
/// the page of a cluster shows the rest. So what a page asks for each second stays small.
pub const SHOWN_MAX: usize = 128;

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// What is known now.
#[derive(Debug)]
pub(super) struct Newest {
    /// When that was, in seconds since 1970.
    pub(super) at: f64,
    /// What the daemon said, or why it says nothing.
    pub(super) daemon: Result<Daemon, String>,
    /// Seconds until the next sample.
    pub(super) pause: f64,
}

/// The daemon, at its last sample.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) document: Document,
    /// Of each cluster, in their order.
    pub(super) rates: Vec<Rates>,
    pub(super) usage: Option<Usage>,
}

/// The answer. `own` looks at what we use ourselves.
pub(super) fn answer(
    request: &Request,
    newest: &Newest,
    history: &History,
    own: impl FnOnce() -> Option<Usage>,
) -> Response {
    let cluster = http::value(&request.query, "cluster");
    match &*request.path {
        "/" => Response::ok(HTML, include_str!("page/page.html")),
        "/app.js" => Response::ok("text/javascript; charset=utf-8", include_str!("page/app.js")),
        "/plot.js" => Response::ok("text/javascript; charset=utf-8", include_str!("page/plot.js")),
        "/style.css" => Response::ok("text/css; charset=utf-8", include_str!("page/style.css")),
        "/icon.svg" => Response::ok("image/svg+xml", include_str!("page/icon.svg")),
        "/healthz" => Response::ok(TEXT, "ok\n"),
        "/readyz" => ready(newest, cluster.as_deref()),
        "/metrics" => {
            let format = Format::of(&request.accept);
            let daemon = newest.daemon.as_ref().ok();
            let text = metrics::all(
                daemon.map(|daemon| &daemon.document),
                daemon.and_then(|daemon| daemon.usage.as_ref()),
                own().as_ref(),
                format,
            );
            Response::ok(format.content_type(), text)
        }
        "/api/v1/schema.json" => Response::ok("application/schema+json", include_str!("page/schema.json")),
        "/api/v1/clusters" => with(newest, |daemon| Response::ok(JSON, &*daemon.document.text)),
        "/api/v1/page" => Response::ok(JSON, page(newest, history, cluster.as_deref()).to_string()),
        "/api/v1/history" => {
            let after = http::value(&request.query, "after");
            let after = after.and_then(|text| text.parse().ok()).unwrap_or_default();
            Response::ok(JSON, history.since(after, cluster.as_deref()).to_string())
        }
        path => {
            if path
                .strip_prefix("/cluster/")
                .is_some_and(|name| !name.is_empty())
            {
                return Response::ok(HTML, include_str!("page/page.html"));
            }
            let name = path.strip_prefix("/api/v1/clusters/").and_then(http::decoded);
            match name {
                Some(name) => with(newest, |daemon| one(&daemon.document, &name)),
                None => Response::refusal(404, "there is nothing of that name"),
            }
        }
    }
}

fn with(newest: &Newest, answer: impl FnOnce(&Daemon) -> Response) -> Response {
    match &newest.daemon {
        Ok(daemon) => answer(daemon),
        Err(why) => error(503, why),
    }
}

fn error(status: u16, why: &str) -> Response {
    Response {
        status,
        content_type: JSON,
        body: format!("{}\n", json!({ "error": why })),
    }
}

/// The daemon's document with that cluster alone, as `ls NAME --json` has it.
fn one(document: &Document, name: &str) -> Response {
    match document.cluster(name) {
        None => error(404, &format!("no cluster {name}")),
        Some(cluster) => {
            let document = json!({
                "version": document.version(),
                "uptime": document.uptime(),
                "clusters": [cluster],
            });
            Response::ok(JSON, format!("{document}\n"))
        }
    }
}

/// Whether calls find a member: in every cluster, or in the one that is asked for.
fn ready(newest: &Newest, cluster: Option<&str>) -> Response {
    let document = match &newest.daemon {
        Ok(daemon) => &daemon.document,
        Err(why) => return Response::refusal(503, why),
    };
    let asked: Vec<&Value> = match cluster {
        None => document.clusters().iter().collect(),
        Some(name) => match document.cluster(name) {
            None => return Response::refusal(404, &format!("no cluster {name}")),
            Some(cluster) => vec![cluster],
        },
    };
    let waiting: Vec<&str> = asked
        .iter()
        .filter(|cluster| !judge::serves(cluster))
        .map(|cluster| text(cluster, "name"))
        .collect();
    if asked.is_empty() {
        Response::refusal(503, "no cluster is configured")
    } else if waiting.is_empty() {
        Response::ok(TEXT, "ready\n")
    } else {
        Response::refusal(503, &format!("no member for new calls: {}", waiting.join(", ")))
    }
}

/// What the page shows: of one cluster everything, of all those that [`SHOWN_MAX`] leaves.
fn page(newest: &Newest, history: &History, only: Option<&str>) -> Value {
    let changes: Vec<Value> = history
        .changes()
        .filter(|change| change.cluster.is_empty() || only.is_none_or(|name| name == change.cluster))
        .map(|change| {
            json!({
                "at": rounded(change.at),
                "cluster": change.cluster,
                "member": change.member,
                "what": change.what,
                "why": change.why,
            })
        })
        .collect();
    let mut page = json!({
        "at": rounded(newest.at),
        "pause": newest.pause,
        "changes": changes,
        "up": newest.daemon.is_ok(),
        "program": env!("CARGO_PKG_VERSION"),
    });
    let more = match &newest.daemon {
        Err(why) => json!({ "why": why }),
        Ok(daemon) => of_daemon(daemon, only),
    };
    if let (Some(page), Value::Object(more)) = (page.as_object_mut(), more) {
        page.extend(more);
    }
    page
}

fn of_daemon(daemon: &Daemon, only: Option<&str>) -> Value {
    let document = &daemon.document;
    let is_asked = |name: &str| only.is_none_or(|only| only == name);
    let shows_all = only.is_some() || document.members() <= SHOWN_MAX;
    let clusters: Vec<Value> = document
        .clusters()
        .iter()
        .zip(&daemon.rates)
        .filter(|(cluster, _)| is_asked(text(cluster, "name")))
        .map(|(cluster, rates)| of_cluster(cluster, rates, shows_all))
        .collect();
    let troubles: Vec<Value> = judge::troubles(document, &daemon.rates)
        .iter()
        .filter(|trouble| is_asked(&trouble.cluster))
        .map(|trouble| {
            json!({
                "bad": trouble.weight == judge::Weight::Bad,
                "cluster": trouble.cluster,
                "member": trouble.member,
                "what": trouble.what,
                "since": trouble.since,
            })
        })
        .collect();
    json!({
        "version": document.version(),
        "uptime": document.uptime(),
        "troubles": troubles,
        "clusters": clusters,
    })
}

fn of_cluster(cluster: &Value, rates: &Rates, shows_all: bool) -> Value {
    let shown: Vec<Value> = members(cluster)
        .iter()
        .filter(|member| shows_all || judge::is_troubled(member))
        .map(of_member)
        .collect();
    let online = members(cluster).iter().filter(|member| is_online(member)).count();
    json!({
        "name": text(cluster, "name"),
        "address": format!("{} {}", text(cluster, "protocol"), text(cluster, "address")),
        "draining": cluster.get("draining"),
        "online": online,
        "size": members(cluster).len(),
        "sessions": count(cluster, "bound"),
        "clients": count(cluster, "clients"),
        "calls": rates.calls.map(rounded),
        "errors": rates.errors.map(rounded),
        "members": shown,
    })
}

/// A row of a table: much shorter without the names of its columns.
fn of_member(member: &Value) -> Value {
    json!([
        text(member, "name"),
        is_online(member),
        text(member, "status"),
        count(member, "active_sessions"),
        count(member, "capacity"),
        count(member, "bound"),
        number(member, "average_delay").map(rounded),
        counter_sum(member),
        number(member, "since").map(f64::round),
        text(member, "reason"),
        number(member, "weight"),
        format!("{} {}", text(member, "protocol"), text(member, "address")),
    ])
}

/// What went wrong at a member since the daemon's start.
fn counter_sum(member: &Value) -> u64 {
    ["errors", "timeouts", "refused"]
        .iter()
        .filter_map(|name| super::document::counter(member, name))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::{cluster, member};
    use crate::status::fake::{document, of_the_manual};

    fn with_document(document: Document) -> Newest {
        Newest {
            at: 1000.0,
            daemon: Ok(Daemon {
                rates: vec![Rates::default(); document.clusters().len()],
                document,
                usage: None,
            }),
            pause: 1.0,
        }
    }

    fn away() -> Newest {
        Newest {
            at: 1000.0,
            daemon: Err("cannot connect".to_owned()),
            pause: 1.0,
        }
    }

    fn get(target: &str, newest: &Newest) -> Response {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let request = http::read(head.as_bytes()).unwrap().unwrap();
        answer(&request, newest, &History::default(), || None)
    }

    fn json_of(response: &Response) -> Value {
        serde_json::from_str(&response.body).unwrap()
    }

    #[test]
    fn a_cluster_without_a_member_for_new_calls_is_not_ready() {
        let newest = with_document(of_the_manual());
        let all = get("/readyz", &newest);
        assert_eq!(
            (all.status, &*all.body),
            (503, "no member for new calls: Supercluster#2\n")
        );
        assert_eq!(get("/readyz?cluster=Supercluster%231", &newest).status, 200);
        assert_eq!(get("/readyz?cluster=Supercluster%232", &newest).status, 503);
        assert_eq!(get("/readyz?cluster=none", &newest).status, 404);
        assert_eq!(get("/readyz", &with_document(document(&[]))).status, 503);
    }

    #[test]
    fn a_daemon_that_is_away_is_told_and_we_are_healthy() {
        let newest = away();
        assert_eq!(get("/healthz", &newest).status, 200);
        assert_eq!(get("/readyz", &newest).body, "cannot connect\n");
        assert_eq!(get("/api/v1/clusters", &newest).status, 503);
        let page = json_of(&get("/api/v1/page", &newest));
        assert_eq!(
            (&page["up"], &page["why"]),
            (&false.into(), &"cannot connect".into())
        );
        assert!(
            get("/metrics", &newest)
                .body
                .contains("rtp_cluster_daemon_up 0\n")
        );
    }

    #[test]
    fn the_documents_are_those_of_the_daemon() {
        let newest = with_document(of_the_manual());
        assert_eq!(get("/api/v1/clusters", &newest).body, of_the_manual().text);
        let one = json_of(&get("/api/v1/clusters/Supercluster%232", &newest));
        assert_eq!(one["clusters"].as_array().unwrap().len(), 1);
        let all: Value = serde_json::from_str(&of_the_manual().text).unwrap();
        assert_eq!(one["clusters"][0], all["clusters"][1]);
        assert_eq!(get("/api/v1/clusters/none", &newest).status, 404);
        assert_eq!(get("/api/v1/clusters/%ff", &newest).status, 404);
    }

    #[test]
    fn every_file_of_the_page_is_there_and_nothing_else() {
        let newest = away();
        for path in [
            "/",
            "/app.js",
            "/plot.js",
            "/style.css",
            "/icon.svg",
            "/cluster/x",
            "/api/v1/schema.json",
        ] {
            let found = get(path, &newest);
            assert!(found.status == 200 && !found.body.is_empty(), "{path}");
        }
        for path in ["/x", "/cluster/", "/app.js/", "/../etc/passwd", "/api/v1", "//"] {
            assert_eq!(get(path, &newest).status, 404, "{path}");
        }
    }

    #[test]
    fn of_very_many_members_the_page_of_all_shows_those_in_trouble() {
        let mut proxies: Vec<_> = (0..=SHOWN_MAX)
            .map(|n| member(&format!("m{n}"), 1, 1, 100))
            .collect();
        proxies[7].online = false;
        let newest = with_document(document(&[cluster("C", "/c", proxies)]));
        let shown = |target| json_of(&get(target, &newest))["clusters"][0]["members"].clone();
        assert_eq!(shown("/api/v1/page").as_array().unwrap().len(), 1);
        assert_eq!(shown("/api/v1/page")[0][0], "m7");
        assert_eq!(
            shown("/api/v1/page?cluster=C").as_array().unwrap().len(),
            SHOWN_MAX + 1
        );
    }

    #[test]
    fn the_page_of_a_cluster_has_its_own_troubles_alone() {
        let newest = with_document(of_the_manual());
        let troubles = |target| {
            json_of(&get(target, &newest))["troubles"]
                .as_array()
                .unwrap()
                .len()
        };
        assert_eq!(troubles("/api/v1/page?cluster=Supercluster%231"), 0);
        assert_eq!(troubles("/api/v1/page"), 3);
    }

    /// Holds `value` to `schema`, as far as ours goes: an object has no property that the schema does not name.
    fn hold(schema: &Value, value: &Value, root: &Value, place: &str) {
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.strip_prefix("#/$defs/").unwrap();
            return hold(&root["$defs"][name], value, root, place);
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => panic!("{place}: no type in the schema"),
        };
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_u64() && types.contains(&"integer") => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        assert!(types.contains(&found), "{place}: {found}, want {types:?}");
        if let Some(allowed) = schema["enum"].as_array() {
            assert!(allowed.contains(value), "{place}: {value}");
        }
        for (n, item) in value.as_array().into_iter().flatten().enumerate() {
            hold(&schema["items"], item, root, &format!("{place}[{n}]"));
        }
        let Some(object) = value.as_object() else { return };
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(
                object.contains_key(required.as_str().unwrap()),
                "{place}: no {required}"
            );
        }
        for (key, value) in object {
            let place = format!("{place}.{key}");
            let schema = match &schema["properties"][key] {
                Value::Null => &schema["additionalProperties"],
                schema => schema,
            };
            assert!(schema.is_object(), "{place}: the schema does not know it");
            hold(schema, value, root, &place);
        }
    }

    #[test]
    fn the_schema_describes_what_the_daemon_says() {
        let schema: Value = serde_json::from_str(include_str!("page/schema.json")).unwrap();
        for seen in [of_the_manual(), document(&[])] {
            hold(&schema, &serde_json::from_str(&seen.text).unwrap(), &schema, "");
        }
        let one = json_of(&get("/api/v1/clusters/1", &with_document(of_the_manual())));
        hold(&schema, &one, &schema, "");
    }
}
