//! stub
use std::sync::Arc;
use crate::cluster::Cluster; use crate::config::model; use crate::dispatch::session::MemberId; use crate::dispatch::outbox::Probed;
use std::time::Instant;
#[derive(Debug)]
pub enum Message { Watch{cluster: Arc<Cluster>, member: MemberId, rules: model::Health}, Forget{cluster: usize, member: MemberId}, Rules{cluster: usize, rules: model::Health}, Probed{cluster: usize, member: MemberId, result: Probed, at: Instant}, Suspect{cluster: usize, member: MemberId}, Stop}
#[derive(Debug)]
pub struct Health;
impl Health { pub fn waiting(_: crossbeam_channel::Receiver<Message>) -> Self {Self} pub fn start(&mut self) -> std::io::Result<()> {Ok(())} pub fn join(self){} }
pub fn channel() -> (crossbeam_channel::Sender<Message>, crossbeam_channel::Receiver<Message>) { crossbeam_channel::bounded(1) }
