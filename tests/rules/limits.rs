//! The man pages tell the limits of the program: each constant stands in a sentence of theirs.

use core::time::Duration;

use rtp_cluster::admin::{self, lines, places, reply};
use rtp_cluster::client::{fair, order, repeat};
use rtp_cluster::cluster::front;
use rtp_cluster::cluster::relay::outlet;
use rtp_cluster::config::{self, model};
use rtp_cluster::dispatch::{self, delay, event, jobs, losses, member, members, pending, session};
use rtp_cluster::link;
use rtp_cluster::protocol::{command, parts};
use rtp_cluster::rim::feed;
use rtp_cluster::status::{self, http, http_thread};

use super::mdoc::Page;

/// Each of `limits` stands in the page.
fn assert_told(file: &'static str, limits: &[String]) {
    let page = Page::read(file).words().to_lowercase();
    for limit in limits {
        assert!(
            page.contains(&limit.to_lowercase()),
            "{file} does not say: {limit}"
        );
    }
}

/// Notifications of a member's loss.
fn notices_a_second() -> u128 {
    let steps = Duration::from_secs(1).as_millis() / losses::STEP.as_millis();
    steps * u128::try_from(losses::PER_STEP).expect("few")
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn s(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

#[test]
fn the_page_of_the_daemon_tells_its_limits() {
    assert_told(
        "man/rtp_cluster.8",
        &[
            format!(
                "{} bytes, {} words and {} sub-commands",
                command::COMMAND_MAX,
                command::WORDS_MAX,
                parts::PARTS_MAX
            ),
            format!("A reply of a member has at most {} bytes", link::REPLY_MAX),
            format!("A member has {} for a command", s(dispatch::ANSWER_WITHIN)),
            format!("an attempt has {} at a member", ms(delay::IN_TIME_UNKNOWN)),
            format!("never less than {}", ms(delay::IN_TIME_MIN)),
            format!("members have {} when", ms(dispatch::SEEK_FOR)),
            format!(
                "{} for statistics and capabilities",
                s(jobs::statistics::GATHER_FOR)
            ),
            format!("({} when it is not known yet)", ms(delay::PAUSE_UNKNOWN)),
            format!("from {} to {}", ms(delay::PAUSE_MIN), ms(delay::PAUSE_MAX)),
            format!(
                "kept for {}, in at most {} MiB",
                s(repeat::KEEP),
                repeat::BUDGET >> 20
            ),
            format!("for at most {} senders", repeat::SOURCES_MAX),
            format!(
                "A sender has at most {} commands in flight",
                repeat::IN_FLIGHT_OF_ONE
            ),
            format!("in at most {} MiB for all senders", fair::BUDGET >> 20),
            format!(
                "A connection has at most {} commands in flight",
                order::IN_FLIGHT_MAX
            ),
            format!("when {} bytes of replies are not taken", order::REST_MAX),
            format!("{} bytes wait for one socket", outlet::QUEUE_BYTES),
            format!("Commands in flight {} a cluster", pending::IN_FLIGHT_MAX),
            format!("{} to one control socket", front::CONNECTIONS_MAX),
            format!("Members {} a cluster", members::MEMBERS_MAX),
            format!("at most {} connections at a time", link::unix::CONNECTIONS),
            format!("may take {} to come about", s(link::CONNECT_WITHIN)),
            format!(
                "{} a member, each for {} minutes",
                member::DEFERRED_MAX,
                member::DEFERRED_FOR.as_secs() / 60
            ),
            format!("stays bound for {}", s(session::ENDED_GRACE)),
        ],
    );
}

#[test]
fn the_page_of_the_client_tells_those_of_the_admin_socket() {
    assert_told(
        "man/rtp_cluster_client.8",
        &[
            format!(
                "{} connections, {} of them",
                places::CONNECTIONS_MAX,
                places::READ_ONLY_CONNECTIONS_MAX
            ),
            format!(
                "a line has at most {} bytes, a reply {}, a command {} pairs",
                lines::LINE_MAX,
                reply::REPLY_MAX,
                admin::command::PAIRS_MAX
            ),
            format!("what comes when {} lines wait for it", feed::QUEUE_MAX),
            format!(
                "the last {} commands that failed or took over {} ms",
                event::RECENT_MAX,
                event::SLOW.as_millis()
            ),
            format!(
                "({}, at most {})",
                admin::command::SESSIONS_LISTED,
                admin::command::SESSIONS_LISTED_MAX
            ),
        ],
    );
}

#[test]
fn the_page_of_the_status_program_tells_its_limits() {
    assert_told(
        "man/rtp_cluster_status.8",
        &[
            format!("{} connections are served at a time", http_thread::WORKERS),
            format!(
                "at most {} bytes and {} lines, its path {} bytes",
                http::HEAD_MAX,
                http::HEADERS_MAX,
                http::TARGET_MAX
            ),
            format!("has to come within {}", s(http_thread::HEAD_WITHIN)),
            format!("taken within {}", s(http_thread::ANSWER_WITHIN)),
            format!("With more than {} members", status::SHOWN_MAX),
            format!("a point for each {} s", status::STEP),
            format!("of {} clusters and members together", status::PASTS_MAX),
            format!("the last {} changes", status::CHANGES_MAX),
        ],
    );
}

#[test]
fn the_page_of_the_configuration_tells_those_of_a_file() {
    assert_told(
        "man/rtp_cluster.xml.5",
        &[
            format!("A file has at most {} bytes", config::FILE_MAX),
            format!("at most {} errors are shown", config::FAULTS_MAX),
            format!("once, {} a second", notices_a_second()),
            format!("A path has at most {} bytes", model::SOCKET_PATH_MAX),
            format!("The port is {} where none is given", model::DEFAULT_PORT),
        ],
    );
}
