//! HTTP/1.1 as far as we speak it: the head of a request to a value or a refusal, an answer to bytes. Pure. One request a
//! connection, GET and HEAD, and no body: so there is nothing to smuggle a second request in.

use core::fmt::Write;

use httparse::{EMPTY_HEADER, Status};

/// Longest head of a request, in bytes: a browser's with all its headers has less than two thousand.
pub const HEAD_MAX: usize = 8192;
/// Header lines of a request.
pub const HEADERS_MAX: usize = 64;
/// Longest path with its query: the longest name of a cluster, each byte of it as `%41`, has room.
pub const TARGET_MAX: usize = 2048;

/// A request that may be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Without its query, and as it came: still with its `%41`.
    pub(super) path: String,
    /// What stands behind the `?`.
    pub(super) query: String,
    /// All `Accept` lines.
    pub(super) accept: String,
    /// HEAD: the same answer, without its body.
    pub(super) head_only: bool,
}

/// Reads what has come so far: `None` when the head is not whole yet.
///
/// # Errors
/// What is answered instead.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Request>, Response> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Response::refusal(431, "the head of the request is too long"));
        }
        Err(error) => return Err(Response::refusal(400, &format!("no HTTP request: {error}"))),
    }
    let (method, target) = (
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
    );
    let values = |name: &'static str| {
        let headers = request.headers.iter();
        headers
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    };
    if request.version == Some(1) && values("host").count() != 1 {
        return Err(Response::refusal(400, "want one Host line"));
    }
    if !matches!(method, "GET" | "HEAD") {
        return Err(Response::refusal(
            405,
            "nothing can be changed here: want GET or HEAD",
        ));
    }
    let has_length = values("content-length").any(|value| value != b"0");
    if has_length || values("transfer-encoding").next().is_some() {
        return Err(Response::refusal(413, "want a request without a body"));
    }
    if target.len() > TARGET_MAX {
        return Err(Response::refusal(414, "the path is too long"));
    }
    // A proxy's form names a host before the path.
    let target = target.strip_prefix("http://").map_or(target, |rest| {
        rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
    });
    if !target.starts_with('/') {
        return Err(Response::refusal(400, "want a path that begins with /"));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let accept: Vec<_> = values("accept").map(String::from_utf8_lossy).collect();
    Ok(Some(Request {
        path: path.to_owned(),
        query: query.to_owned(),
        accept: accept.join(","),
        head_only: method == "HEAD",
    }))
}

/// A path or a value with its `%41` read. `None` where that is no UTF-8, or a `%` without its number.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digits = core::str::from_utf8(digits).ok()?;
            // `+4` is a number to Rust.
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The value of `name` in a query, read; of several the first.
pub(super) fn value(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    decoded(&value.replace('+', " "))
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

/// Plain text.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

impl Response {
    /// 200.
    pub(super) fn ok(content_type: &'static str, body: impl Into<String>) -> Self {
        Self {
            status: 200,
            content_type,
            body: body.into(),
        }
    }

    /// A line that says why not.
    pub(super) fn refusal(status: u16, why: &str) -> Self {
        Self {
            status,
            content_type: TEXT,
            body: format!("{why}\n"),
        }
    }

    /// Its bytes, sent at `now`, in seconds since 1970.
    pub(super) fn bytes(&self, now: u64, head_only: bool) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\n\
             Date: {}\r\n\
             Server: rtp_cluster_status\r\n\
             Content-Type: {}\r\n\
             Content-Length: {}\r\n\
             Connection: close\r\n\
             Cache-Control: no-store\r\n\
             Content-Security-Policy: {POLICY}\r\n\
             Referrer-Policy: no-referrer\r\n\
             X-Content-Type-Options: nosniff\r\n",
            self.status,
            reason(self.status),
            date(now),
            self.content_type,
            self.body.len(),
        );
        if self.status == 405 {
            head.push_str("Allow: GET, HEAD\r\n");
        }
        head.push_str("\r\n");
        if !head_only {
            head.push_str(&self.body);
        }
        head.into_bytes()
    }
}

/// All that the page may load and do: its own files, and ask us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

/// RFC 9110, section 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(now: u64) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    fn name<'a>(names: &[&'a str], number: u64) -> &'a str {
        usize::try_from(number)
            .ok()
            .and_then(|at| names.get(at).copied())
            .unwrap_or_default()
    }
    let (days, seconds) = (now / 86_400, now % 86_400);
    // Years that begin in March have their leap day at the end; 719,468 days before 1970 one of 400 years began.
    let days_of_eras = days + 719_468;
    let (era, day) = (days_of_eras / 146_097, days_of_eras % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 {
        (month + 2, era * 400 + year)
    } else {
        (month - 10, era * 400 + year + 1)
    };
    let mut text = String::new();
    let _ = write!(
        text,
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        name(&WEEKDAYS, days % 7),
        name(&MONTHS, month),
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> u16 {
        read(request.as_bytes()).unwrap_err().status
    }

    #[test]
    fn a_request_is_read_when_its_head_is_whole() {
        let text = "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\naccept: text/plain\r\nAccept: */*\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(read(&text.as_bytes()[..end]).unwrap(), None, "{end}");
        }
        let request = read(text.as_bytes()).unwrap().unwrap();
        assert_eq!((&*request.path, &*request.query), ("/metrics", "x=1"));
        assert_eq!((&*request.accept, request.head_only), ("text/plain,*/*", false));
        assert!(read(b"HEAD / HTTP/1.0\r\n\r\n").unwrap().unwrap().head_only);
        let of_a_proxy = read(b"GET http://a:1/x HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(of_a_proxy.path, "/x");
    }

    #[test]
    fn what_is_wrong_has_its_status() {
        for (wanted, request) in [
            (400, "\u{1}\u{2}\u{3}".to_owned()),
            (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned()),
            (400, "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned()),
            (400, "GET x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
            (400, "GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n".to_owned()),
            (405, "POST / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
            (405, "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
            (
                413,
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n".to_owned(),
            ),
            (
                413,
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            ),
            (
                414,
                format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(TARGET_MAX)),
            ),
            (431, format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(HEAD_MAX))),
            (
                431,
                format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1)),
            ),
        ] {
            assert_eq!(status(&request), wanted, "{request}");
        }
    }

    #[test]
    fn names_are_read_from_their_numbers() {
        assert_eq!(decoded("a%2Fb%20%C3%A9+").as_deref(), Some("a/b é+"));
        for wrong in ["%", "%4", "%zz", "%+4", "%ff"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
        assert_eq!(value("a=1&cluster=x%23+1", "cluster").as_deref(), Some("x# 1"));
        assert_eq!(value("clusters=1&cluster", "cluster"), None);
    }

    #[test]
    fn an_answer_says_what_it_is_and_ends_the_connection() {
        let answer = Response::ok(TEXT, "é\n");
        let text = String::from_utf8(answer.bytes(784_111_777, false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
        assert!(text.ends_with("\r\n\r\né\n") && text.contains("Content-Length: 3\r\n"));
        assert!(text.contains("Connection: close\r\n") && text.contains("default-src 'none'"));
        assert!(answer.bytes(0, true).ends_with(b"\r\n\r\n"));
        assert!(
            String::from_utf8(Response::refusal(405, "no").bytes(0, false))
                .unwrap()
                .contains("Allow: GET")
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
