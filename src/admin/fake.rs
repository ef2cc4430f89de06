//! A server for the tests of this room: clusters in memory that do at once what they are told.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use core::time::Duration;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::admin::operator::{Loaded, Operator, Refusal};
use crate::config::Setting;
use crate::config::model::{Address, Cluster, Config, Member, Name, Protocol, Status};
use crate::dispatch::event::{Event, Step, Subject, Traced};
use crate::dispatch::histogram::{DELAY_BUCKETS, Histogram};
use crate::dispatch::view::{
    CLUSTER_COUNTERS, ClusterView, MEMBER_COUNTERS, MemberView, SessionsView, Summary,
};
use crate::rim::feed::{Feed, Subscription, Wake};

/// Clusters in memory.
pub(crate) struct Fake {
    pub(crate) clusters: Mutex<Vec<ClusterView>>,
    /// Path and known contents of the configuration.
    pub(crate) file: Mutex<(PathBuf, Vec<u8>)>,
    /// What the next reloads say.
    pub(crate) reload: Mutex<Result<Loaded, Refusal>>,
    /// Every change, in the order in which it was made.
    pub(crate) changes: Mutex<Vec<String>>,
    /// Parts that each listing of sessions has, of a thousand calls; 0 for the two calls of the manual.
    pub(crate) parts_of_sessions: AtomicUsize,
    /// How often a cluster or its sessions were asked for.
    pub(crate) looks: AtomicUsize,
    pub(crate) own_files: Vec<PathBuf>,
    /// What is told to those who watch.
    pub(crate) events: Feed<Event>,
    /// What is told to those who trace.
    pub(crate) steps: Feed<Traced>,
}

/// A directory of its own for one test, gone with it.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "rtp-admin-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A name that is one.
pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The first member of the manual has become `new`.
pub(crate) fn event(new: &'static str) -> Event {
    Event {
        at: Duration::from_millis(1_500),
        subject: Subject::Member {
            cluster: name("Supercluster#1"),
            member: name("RTPPROXY1"),
            address: "127.0.0.1:22222".into(),
        },
        old: Some("online".into()),
        new: new.into(),
        why: "2 probes unanswered".into(),
    }
}

/// A command of a call has gone to that member.
pub(crate) fn traced(call_id: &str, text: &[u8]) -> Traced {
    Traced {
        at: Duration::from_millis(1_500),
        call_id: call_id.into(),
        step: Step::Sent,
        client: "127.0.0.1:5060".into(),
        member: Some(name("RTPPROXY1")),
        attempt: Some(1),
        delay: Some(Duration::from_micros(312)),
        why: "chosen by weight".into(),
        command: None,
        text: text.to_vec(),
        ends_call: false,
    }
}

/// One in each bucket.
fn times() -> Histogram {
    Histogram {
        buckets: [1; DELAY_BUCKETS.len() + 1],
        sum: Duration::from_millis(40),
    }
}

/// An online member on 127.0.0.1.
pub(crate) fn member(text: &str, port: u16, weight: u16, capacity: u32) -> MemberView {
    MemberView {
        member: Member::new(
            name(text),
            Protocol::Udp,
            Address::Ip(([127, 0, 0, 1], port).into()),
            weight,
            capacity,
        ),
        online: true,
        why: "answers".into(),
        next_try: None,
        lacks: Some(Vec::new()),
        since: Duration::from_secs(90),
        active_sessions: Some(0),
        bound: 0,
        delay: Some(Duration::from_micros(312)),
        deferred_deletes: 0,
        in_flight: 0,
        counters: [7; MEMBER_COUNTERS.len()],
        times: times(),
    }
}

/// A cluster on a UNIX socket.
pub(crate) fn cluster(text: &str, path: &str, members: Vec<MemberView>) -> ClusterView {
    ClusterView {
        cluster: Cluster::new(name(text), Protocol::Unix, Address::Path(path.into())),
        draining: false,
        members,
        bound: 3,
        in_flight: 1,
        clients: 2,
        counters: [5; CLUSTER_COUNTERS.len()],
        times: times(),
        commands: vec![('U', 10, 1, 2), ('D', 4, 0, 0)],
    }
}

/// What is counted of a cluster.
pub(crate) fn summary(view: &ClusterView) -> Summary {
    let active = view.members.iter().filter(|member| member.online).count();
    Summary {
        cluster: view.cluster.clone(),
        draining: view.draining,
        active,
        inactive: view.members.len() - active,
        bound: view.bound,
        in_flight: view.in_flight,
        clients: view.clients,
    }
}

impl Fake {
    /// The two clusters of the manual: two members online in the first, two offline in the second.
    pub(crate) fn of_the_manual() -> Self {
        let first = vec![
            member("RTPPROXY1", 22222, 100, 2500),
            member("RTPPROXY2", 22223, 0, 1500),
        ];
        let mut second = vec![
            member("RTPPROXY3", 22224, 100, 2500),
            member("RTPPROXY4", 22225, 100, 2500),
        ];
        for view in &mut second {
            (view.online, view.active_sessions, view.delay) = (false, None, None);
            view.why = "2 probes unanswered".into();
        }
        Self::with(vec![
            cluster("Supercluster#1", "/var/run/rtpproxy.sock", first),
            cluster("Supercluster#2", "/var/run/rtpproxy1.sock", second),
        ])
    }

    /// These clusters.
    pub(crate) fn with(clusters: Vec<ClusterView>) -> Self {
        Self {
            clusters: Mutex::new(clusters),
            file: Mutex::new(("/nonexistent/rtp_cluster.xml".into(), Vec::new())),
            reload: Mutex::new(Ok(Loaded {
                clusters: 2,
                members: 4,
            })),
            changes: Mutex::new(Vec::new()),
            parts_of_sessions: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            own_files: Vec::new(),
            events: Feed::default(),
            steps: Feed::default(),
        }
    }

    /// The clusters with their numbers, as `stats` shows them.
    pub(crate) fn numbered(&self) -> Vec<(usize, ClusterView)> {
        self.clusters.lock().iter().cloned().enumerate().collect()
    }

    /// Changes one member and notes what was done.
    pub(crate) fn change(
        &self,
        what: String,
        cluster: &str,
        member: &str,
        with: impl FnOnce(&mut Vec<MemberView>, usize),
    ) -> Result<(), Refusal> {
        let mut clusters = self.clusters.lock();
        let view = clusters
            .iter_mut()
            .find(|view| view.cluster.name.as_str() == cluster);
        let members = &mut view.ok_or_else(|| Refusal::NoCluster(cluster.into()))?.members;
        let at = members
            .iter()
            .position(|view| view.member.name.as_str() == member);
        with(members, at.ok_or_else(|| Refusal::NoMember(member.into()))?);
        self.changes.lock().push(what);
        Ok(())
    }
}

impl Operator for Fake {
    fn clusters(&self) -> Vec<ClusterView> {
        self.clusters.lock().clone()
    }

    fn summaries(&self) -> Vec<Summary> {
        self.clusters.lock().iter().map(summary).collect()
    }

    fn cluster(&self, name: &str) -> Result<(usize, ClusterView), Refusal> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let clusters = self.clusters.lock();
        let place = clusters
            .iter()
            .position(|view| view.cluster.name.as_str() == name);
        let place = place.ok_or_else(|| Refusal::NoCluster(name.into()))?;
        Ok((place, clusters[place].clone()))
    }

    fn is_online(&self, cluster: &str, name: &str) -> Result<bool, Refusal> {
        let (_, view) = self.cluster(cluster)?;
        let found = view.members.iter().find(|view| view.member.name.as_str() == name);
        Ok(found.ok_or_else(|| Refusal::NoMember(name.into()))?.online)
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(3600)
    }

    fn add_member(&self, cluster: &str, new: Member) -> Result<(), Refusal> {
        let mut clusters = self.clusters.lock();
        let view = clusters
            .iter_mut()
            .find(|view| view.cluster.name.as_str() == cluster);
        let members = &mut view.ok_or_else(|| Refusal::NoCluster(cluster.into()))?.members;
        if members.iter().any(|view| view.member.name == new.name) {
            return Err(Refusal::MemberExists(new.name.to_string()));
        }
        self.changes.lock().push(format!("add {}", new.name));
        let mut view = member(new.name.as_str(), 1, 1, 1);
        view.member = new;
        (view.online, view.active_sessions) = (false, None);
        members.push(view);
        Ok(())
    }

    fn delete_member(&self, cluster: &str, name: &str, now: bool) -> Result<(), Refusal> {
        self.change(format!("delete {name} {now}"), cluster, name, |members, at| {
            if now {
                members.remove(at);
            } else {
                members[at].member.status = Status::Draining;
            }
        })
    }

    fn suspend(&self, cluster: &str, name: &str) -> Result<(), Refusal> {
        let done = format!("suspend {name}");
        self.change(done, cluster, name, |members, at| {
            members[at].member.status = Status::Suspended;
        })
    }

    fn resume(&self, cluster: &str, name: &str) -> Result<(), Refusal> {
        let done = format!("resume {name}");
        self.change(done, cluster, name, |members, at| {
            members[at].member.status = Status::Active;
        })
    }

    fn set(&self, cluster: &str, name: &str, settings: &[Setting]) -> Result<(), Refusal> {
        self.change(
            format!("set {name} {settings:?}"),
            cluster,
            name,
            |members, at| {
                for setting in settings {
                    match setting {
                        Setting::Weight(weight) => members[at].member.weight = *weight,
                        Setting::Capacity(capacity) => members[at].member.capacity = *capacity,
                        Setting::WanAddress(ip) => members[at].member.wan_address = *ip,
                        Setting::LanAddress(ip) => members[at].member.lan_address = *ip,
                        Setting::CmdOutAddress(ip) => members[at].member.cmd_out_address = *ip,
                        Setting::Protocol(_) | Setting::Address(_) => {}
                    }
                }
            },
        )
    }

    fn add_cluster(&self, new: Cluster) -> Result<(), Refusal> {
        self.changes.lock().push(format!("cluster add {}", new.name));
        let mut view = cluster("x", "/x", Vec::new());
        view.cluster = new;
        self.clusters.lock().push(view);
        Ok(())
    }

    fn delete_cluster(&self, name: &str, now: bool) -> Result<(), Refusal> {
        self.cluster(name)?;
        self.changes.lock().push(format!("cluster delete {name} {now}"));
        self.clusters
            .lock()
            .retain(|view| view.cluster.name.as_str() != name);
        Ok(())
    }

    fn sessions(
        &self,
        cluster: &str,
        member: Option<&str>,
        from: usize,
        limit: usize,
    ) -> Result<SessionsView, Refusal> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let (_, view) = self.cluster(cluster)?;
        let owner = name(member.unwrap_or("RTPPROXY1"));
        if !view.members.iter().any(|view| view.member.name == owner) {
            return Err(Refusal::NoMember(owner.to_string()));
        }
        let parts = self.parts_of_sessions.load(Ordering::Relaxed);
        if parts > 0 {
            let calls = (0..limit.min(1_000))
                .map(|n| (vec![b'x'; 100], owner.clone(), Duration::from_secs(1), n == 0));
            return Ok(SessionsView {
                bound: 0,
                listed: calls.collect(),
                next: (from + 1 < parts).then_some(from + 1),
            });
        }
        let mut listed = vec![
            (b"a1@host".to_vec(), owner.clone(), Duration::from_secs(12), false),
            (b"b\n2".to_vec(), owner, Duration::from_secs(700), true),
        ];
        listed.truncate(limit);
        Ok(SessionsView {
            bound: 2,
            listed,
            next: None,
        })
    }

    fn locate(&self, cluster: &str, call_id: &[u8]) -> Result<Option<(Name, Duration)>, Refusal> {
        let listed = self.sessions(cluster, None, 0, 2)?.listed;
        Ok(listed
            .into_iter()
            .find(|entry| entry.0 == call_id)
            .map(|(_, owner, age, _)| (owner, age)))
    }

    fn watch(&self, wake: Wake) -> Result<Subscription<Event>, Refusal> {
        Ok(self.events.listen(|_| true, wake).unwrap())
    }

    fn trace(
        &self,
        cluster: &str,
        call_id: Option<Vec<u8>>,
        wake: Wake,
    ) -> Result<Subscription<Traced>, Refusal> {
        self.cluster(cluster)?;
        let wants = move |step: &Traced| call_id.as_ref().is_none_or(|id| *id == step.call_id);
        Ok(self.steps.listen(wants, wake).unwrap())
    }

    fn traced_last(&self, cluster: &str) -> Result<Vec<Traced>, Refusal> {
        self.cluster(cluster)?;
        Ok(vec![traced("old", b"E50"), traced("new", b"E51")])
    }

    fn reload(&self) -> Result<Loaded, Refusal> {
        self.reload.lock().clone()
    }

    fn running(&self) -> Config {
        let clusters = self.clusters.lock();
        let clusters = clusters.iter().map(|view| {
            let members = view.members.iter().map(|view| view.member.clone());
            let members = members
                .filter(|member| member.status != Status::Draining)
                .collect();
            Cluster {
                members,
                ..view.cluster.clone()
            }
        });
        Config {
            clusters: clusters.collect(),
        }
    }

    fn file(&self) -> (PathBuf, Vec<u8>) {
        self.file.lock().clone()
    }

    fn take_over(&self, _successor: std::os::fd::OwnedFd) {
        self.changes.lock().push("take over".into());
    }

    fn own_files(&self) -> Vec<PathBuf> {
        self.own_files.clone()
    }

    fn saved(&self, contents: Vec<u8>) {
        self.file.lock().1 = contents;
    }
}
