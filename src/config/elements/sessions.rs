//! What the session table is bounded by, and where it is shared.

use super::super::fields::{SESSIONS_EXPIRE, SESSIONS_MAX, STORE, STORE_KEY, store, store_prefix};
use super::super::model::STORE_PREFIX;
use super::{Access, Element, Way, attribute, maybe, tuning};

pub(super) const ELEMENT: Element = tuning(
    "sessions",
    "Bounds of the session table.",
    &[
        attribute(
            "max",
            &SESSIONS_MAX,
            "1000000",
            "Call-ids that are remembered at most; further calls are served without.",
            of_cluster!(SESSIONS_MAX, sessions.max),
        ),
        attribute(
            "expire",
            &SESSIONS_EXPIRE,
            "12h",
            "A call-id is forgotten so long after its last command.",
            of_cluster!(SESSIONS_EXPIRE, sessions.expire),
        ),
        attribute(
            "store",
            &STORE,
            "",
            "Where dispatchers share what they have bound: a Redis or Valkey server.",
            of_cluster!(|c, text| c.store = Some(store(text)?), |c| maybe(
                c.store.as_ref()
            )),
        ),
        attribute(
            "prefix",
            &STORE_KEY,
            STORE_PREFIX,
            "What the keys there begin with.",
            of_cluster!(|c, text| c.store_prefix = store_prefix(text)?, |c| maybe(Some(
                &c.store_prefix
            ))),
        ),
    ],
);
