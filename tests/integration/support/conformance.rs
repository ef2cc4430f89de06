//! The same commands to two members give the same answers: how the fakes are held to the real RTPproxy.

use std::collections::HashMap;

/// Commands in an order that matters: sessions made, found from both ends, weak ones, streams, and every error.
const SCRIPT: &str = "\
V / v / VF 20050322 / VF 1 / VF / V x / Ib / I / Il / I x / G nsess_created / Gv nsess_created nsess_timeout / G bogus / \
U c1 127.0.0.1 4000 f1 / U c1 127.0.0.1 4000 f1 / L c1 127.0.0.1 4002 f1 t1 / U c1 127.0.0.1 4000 f1 t1 / \
U c1 127.0.0.1 4000 t1 f1 / L c1 127.0.0.1 4000 t1 f1 / Q c1 f1 t1 / Q c1 f1 / Qv c1 f1 t1 / Q c1 t1 f1 / \
Q none f1 t1 / Ib / U c1 127.0.0.1 4000 f1;2 / U c1 127.0.0.1 4000 f2 / Ib / D c1 f1;2 / D c1 f1 t1 / \
D c1 f1 t1 / Ib / D c1 f2 / D c1 f2 / Uw w1 127.0.0.1 4000 f1 / D w1 f1 / Ib / Dw w1 - f1 / Dw w1 f1 / Ib / \
Uw w2 127.0.0.1 4000 f / Dw w2 f / Ib / Dw w2 - f / Ib / Uw w3 127.0.0.1 4000 f / Lw w3 127.0.0.1 4 f t / \
Dw w3 f t / Ib / Dw w3 t f / Ib / L none 127.0.0.1 1 a b / U / U a / U c9 127.0.0.1 4000 / D / D a / Q / X a / \
P none x session f / S none f / R none f / N none f / C none x f / Z / Z 1 2 / u c3 127.0.0.1 4000 f t / \
L c3 127.0.0.1 400 f t / U c3 127.0.0.1 2 t f / d c3 t f / V && V / U c4 127.0.0.1 5 f t && L 127.0.0.1 7 / \
U c4 127.0.0.1 5 f && D / Ib / U n1 127.0.0.1 3 f unix:/x tag / D n1 f / U m1 127.0.0.1 3 f / X / Ib / Q m1 f";

/// Runs the script with `ask`, a member that has no session and has had none, and gives commands and answers. Ports
/// are numbered in each call as they appear, and `media`, the member's own address, is called so.
pub fn transcript(media: &str, mut ask: impl FnMut(&str) -> String) -> Vec<String> {
    let mut ports = HashMap::new();
    let commands = SCRIPT.split(" / ");
    commands
        .map(|command| {
            let call = command.split(' ').nth(1).unwrap_or_default().to_owned();
            let reply = ask(command).replace(media, "media");
            let words = reply.split(' ').map(|word| match word.parse::<u16>() {
                Ok(port) if port >= 10_000 => {
                    let next = ports.keys().filter(|(of, _)| *of == call).count() + 1;
                    format!("port{}", *ports.entry((call.clone(), port)).or_insert(next))
                }
                _ => word.to_owned(),
            });
            format!("{command} -> {}", words.collect::<Vec<_>>().join(" "))
        })
        .collect()
}
