//! Documents for the tests of this room, as the daemon writes them.

use core::time::Duration;

use super::document::Document;
use crate::admin::fake::Fake;
use crate::admin::render_json;
use crate::admin::select::Selection;
use crate::dispatch::view::ClusterView;

/// The document of these clusters, after an hour.
pub(super) fn document(clusters: &[ClusterView]) -> Document {
    let text = render_json::clusters(
        clusters.iter().enumerate(),
        Selection::default(),
        Duration::from_secs(3600),
    );
    Document::read(text).unwrap()
}

/// That of the manual: one cluster is well, of the other one all is away.
pub(super) fn of_the_manual() -> Document {
    document(&Fake::of_the_manual().clusters.into_inner())
}
