//! XML text to a tree of elements, each with its place. Knows XML and its dangers, nothing of clusters.
//!
//! Whatever the text, time and memory stay in proportion to its length: depth, elements, attributes and names are
//! bounded, and entities cannot be declared, so nothing can expand. Nothing is ever fetched.

use xml::common::Position as _;
use xml::name::OwnedName;
use xml::reader::{ErrorKind, EventReader, ParserConfig, XmlEvent};

use super::fault::Position;

/// Elements within elements; a configuration needs four.
const DEPTH_MAX: usize = 8;
/// Elements of a file: more than 4 MiB of sensible ones.
const ELEMENTS_MAX: usize = 250_000;
/// Attributes of one element; a configuration needs six.
const ATTRIBUTES_MAX: usize = 32;
/// Bytes of the name of an element or attribute.
const NAME_MAX: usize = 256;
/// Bytes of an attribute's value.
const ATTRIBUTE_MAX: usize = 4 << 10;
/// Bytes of one piece of text or of a comment.
const DATA_MAX: usize = 64 << 10;

/// An element as it stands in the file.
#[derive(Debug)]
pub(super) struct Node {
    /// With its prefix, if it has one.
    pub(super) name: String,
    /// Where its tag begins.
    pub(super) at: Position,
    /// In the order of the file; XML lets none stand twice.
    pub(super) attributes: Vec<Pair>,
    /// All pieces of its own text, whatever stood between them.
    pub(super) text: String,
    /// Where that text begins.
    pub(super) text_at: Position,
    /// In the order of the file.
    pub(super) children: Vec<Node>,
    /// Whether its end was seen: what is missing in a torn element is no fault of its own.
    pub(super) whole: bool,
}

/// An attribute as it stands in the file.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) at: Position,
}

/// What could be read.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The outermost element.
    pub(super) root: Option<Node>,
    /// Where reading ended early, and why.
    pub(super) fault: Option<(Position, String)>,
    /// A DOCTYPE that was read past.
    pub(super) doctype: Option<Position>,
}

/// Reads `text` as far as it is XML. What came before a fault is in the tree.
pub(super) fn read(text: &str) -> Tree {
    let mut reader = Reader::new(text);
    let fault = reader.run().err();
    // A fault leaves elements open: what they hold so far goes to their parents.
    while reader.open.len() > 1 {
        reader.close(false);
    }
    let root = reader.root.take().or_else(|| reader.open.pop());
    Tree {
        root,
        fault,
        doctype: reader.doctype,
    }
}

struct Reader<'a> {
    text: &'a str,
    xml: EventReader<&'a [u8]>,
    place: Place<'a>,
    /// Elements whose end is still to come, the outermost first.
    open: Vec<Node>,
    root: Option<Node>,
    elements: usize,
    doctype: Option<Position>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        // The text is UTF-8, whatever it declares. Comments are asked for, though not needed: where it leaves
        // them out or joins texts, the parser's own count of events is off, which a debug build asserts.
        let limits = ParserConfig::new()
            .override_encoding(Some(xml::Encoding::Utf8))
            .ignore_invalid_encoding_declarations(true)
            .allow_multiple_root_elements(false)
            .ignore_comments(false)
            .coalesce_characters(false)
            .max_attributes(ATTRIBUTES_MAX)
            .max_attribute_length(ATTRIBUTE_MAX)
            .max_name_length(NAME_MAX)
            .max_data_length(DATA_MAX)
            .max_entity_expansion_length(4 << 10)
            .max_entity_expansion_depth(2);
        Self {
            text,
            xml: EventReader::new_with_config(text.as_bytes(), limits),
            place: Place::new(text),
            open: Vec::new(),
            root: None,
            elements: 0,
            doctype: None,
        }
    }

    fn run(&mut self) -> Result<(), (Position, String)> {
        loop {
            match self.xml.next() {
                Ok(XmlEvent::StartElement { name, attributes, .. }) => {
                    let attributes = attributes
                        .into_iter()
                        .map(|attribute| (full(&attribute.name), attribute.value));
                    self.begin(full(&name), attributes.collect())?;
                }
                Ok(XmlEvent::EndElement { .. }) => self.close(true),
                Ok(XmlEvent::Characters(text) | XmlEvent::CData(text) | XmlEvent::Whitespace(text)) => {
                    if let Some(node) = self.open.last_mut() {
                        node.text.push_str(&text);
                    }
                }
                Ok(XmlEvent::Doctype { syntax }) => self.doctype(&syntax)?,
                Ok(
                    XmlEvent::StartDocument { .. }
                    | XmlEvent::ProcessingInstruction { .. }
                    | XmlEvent::Comment(_),
                ) => {}
                Ok(XmlEvent::EndDocument) => return Ok(()),
                Err(error) => return Err(self.explained(&error)),
            }
        }
    }

    fn begin(&mut self, name: String, attributes: Vec<(String, String)>) -> Result<(), (Position, String)> {
        // The parser's own positions are those of the event before. But it reads no further than the tag's `>`,
        // and no `<` can stand within a tag.
        let end = self.consumed();
        let start = self
            .text
            .get(..end)
            .and_then(|read| read.rfind('<'))
            .unwrap_or(end);
        let at = self.place.of(start);
        self.elements += 1;
        if self.open.len() == DEPTH_MAX {
            return Err((
                at,
                format!("<{name}> stands in {DEPTH_MAX} elements: want no more than {DEPTH_MAX} deep"),
            ));
        }
        if self.elements > ELEMENTS_MAX {
            return Err((at, format!("want no more than {ELEMENTS_MAX} elements")));
        }
        let tag = self.text.get(start..end).unwrap_or("");
        let mut places = attribute_offsets(tag);
        let pair = |(name, value): (String, String)| {
            // An xmlns declaration is in the tag, but no attribute to the parser: look on until the name fits.
            let offset = places
                .find(|(found, _)| *found == name)
                .map_or(0, |(_, offset)| offset);
            Pair {
                name,
                value,
                at: self.place.of(start + offset),
            }
        };
        let attributes = attributes.into_iter().map(pair).collect();
        let rest = self.text.get(end..).unwrap_or("");
        let text_at = self.place.of(end + (rest.len() - rest.trim_start().len()));
        self.open.push(Node {
            name,
            at,
            attributes,
            text: String::new(),
            text_at,
            children: Vec::new(),
            whole: false,
        });
        Ok(())
    }

    /// Ends the innermost element.
    fn close(&mut self, whole: bool) {
        let Some(mut node) = self.open.pop() else { return };
        node.whole = whole;
        match self.open.last_mut() {
            Some(parent) => parent.children.push(node),
            None => self.root = Some(node),
        }
    }

    /// A DOCTYPE that names a DTD is read past. One that declares something could declare entities, or an
    /// attribute's default, and is refused.
    fn doctype(&mut self, syntax: &str) -> Result<(), (Position, String)> {
        let end = self.consumed();
        let start = self
            .text
            .get(..end)
            .and_then(|read| read.rfind(syntax))
            .unwrap_or(end);
        let at = self.place.of(start);
        // Within the quotes of a name a bracket declares nothing.
        let mut quote = None;
        let declares = syntax.chars().any(|c| {
            if quote == Some(c) {
                quote = None;
            } else if quote.is_none() && matches!(c, '"' | '\'') {
                quote = Some(c);
            }
            quote.is_none() && c == '['
        });
        if declares {
            return Err((at, "DOCTYPE with declarations: want none in the file".to_owned()));
        }
        self.doctype = Some(at);
        Ok(())
    }

    /// Bytes that the parser has read.
    fn consumed(&self) -> usize {
        self.text.len() - self.xml.source().len()
    }

    /// The parser's error in words that say what would be right.
    fn explained(&mut self, error: &xml::reader::Error) -> (Position, String) {
        let message = match error.kind() {
            ErrorKind::Syntax(message) => message.as_ref(),
            _ => "Unexpected end of stream",
        };
        let says = |beginning: &str| message.starts_with(beginning);
        let tag = self
            .text
            .get(..self.consumed())
            .and_then(|read| read.rfind('<'))
            .unwrap_or(0);
        let (tag, end) = (self.place.of(tag), self.place.of(self.text.len()));
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).saturating_add(1);
        let at = error.position();
        let at = Position {
            line: number(at.row()),
            column: number(at.column()),
        };
        let (name, line) = match (self.open.last(), &self.root) {
            (Some(node), _) => (&node.name, node.at.line),
            (None, Some(root)) => return (at, format!("want nothing but comments after </{}>", root.name)),
            (None, None) if says("Unexpected end of stream") => {
                return (
                    end,
                    "the file ends before its first element: want <rtp_cluster_config>".to_owned(),
                );
            }
            (None, None) if says(TOO_MUCH) => return (at, limits()),
            (None, None) => return (at, format!("not XML: {}", first_line(message))),
        };
        if says("Unexpected end of stream") {
            (
                end,
                format!("the file ends within <{name}> of line {line}: want </{name}>"),
            )
        } else if says("Unexpected closing tag") {
            let what =
                format!("the end of another element: want </{name}>, as <{name}> of line {line} is open");
            (tag, what)
        } else if says("Unexpected entity") {
            (
                at,
                "unknown entity: want &amp; &lt; &gt; &quot; &apos; or a number such as &#233;".to_owned(),
            )
        } else if says(TOO_MUCH) {
            (at, limits())
        } else {
            (
                at,
                format!("not XML, in <{name}> of line {line}: {}", first_line(message)),
            )
        }
    }
}

/// What the parser says when one of our limits is reached.
const TOO_MUCH: &str = "This document is larger";

fn limits() -> String {
    format!(
        "too much: want at most {ATTRIBUTES_MAX} attributes in an element, and {NAME_MAX} bytes in a name, \
         {ATTRIBUTE_MAX} in an attribute, {DATA_MAX} in a text or comment"
    )
}

/// A message of the parser, which may have several lines, to go on a sentence.
fn first_line(message: &str) -> String {
    let mut chars = message.lines().next().unwrap_or("").chars();
    chars
        .next()
        .map(|first| first.to_ascii_lowercase())
        .into_iter()
        .chain(chars)
        .collect()
}

/// A name with its prefix.
fn full(name: &OwnedName) -> String {
    name.borrow().repr_display().to_string()
}

/// The names in a tag and where in it each begins: `<a x="1"\n y='>'/>` has `x` at 3 and `y` at 10. The tag has
/// been parsed, so it is well formed.
fn attribute_offsets(tag: &str) -> impl Iterator<Item = (&str, usize)> {
    let mut rest = tag
        .find(char::is_whitespace)
        .map_or("", |end| tag.get(end..).unwrap_or(""));
    core::iter::from_fn(move || {
        let begin = rest.trim_start();
        let (name, value) = begin.split_once('=')?;
        let value = value.trim_start();
        let quote = value.chars().next()?;
        rest = value.get(quote.len_utf8()..)?.split_once(quote)?.1;
        Some((name.trim_end(), tag.len() - begin.len()))
    })
}

/// Turns offsets into lines and columns. Most of them come in rising order, so it goes on from the last.
struct Place<'a> {
    text: &'a str,
    offset: usize,
    at: Position,
}

impl<'a> Place<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            offset: 0,
            at: Position { line: 1, column: 1 },
        }
    }

    fn of(&mut self, offset: usize) -> Position {
        if offset < self.offset {
            *self = Self::new(self.text);
        }
        for c in self.text.get(self.offset..offset).unwrap_or("").chars() {
            if c == '\n' {
                self.at = Position {
                    line: self.at.line + 1,
                    column: 1,
                };
            } else {
                self.at.column += 1;
            }
        }
        self.offset = offset;
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize) -> Position {
        Position { line, column }
    }

    /// The whole tree of a text without fault.
    fn root(text: &str) -> Node {
        let Tree { root, fault, .. } = read(text);
        assert_eq!(fault, None);
        root.unwrap()
    }

    fn fault(text: &str) -> (Position, String) {
        read(text).fault.unwrap()
    }

    #[test]
    fn each_element_attribute_and_text_knows_its_place() {
        let a = root(
            "<?xml version='1.0'?><!-- c -->\n<!DOCTYPE a>\n<a><!-- d -->\n\t<b x='1'\n   y=\">\"/>é<c>\n  5 </c></a>\n",
        );
        assert_eq!((a.name.as_str(), a.at), ("a", at(3, 1)));
        let [b, c] = a.children.as_slice() else {
            panic!("{a:?}")
        };
        assert_eq!((b.at, c.at), (at(4, 2), at(5, 12)));
        let attributes: Vec<_> = b
            .attributes
            .iter()
            .map(|p| (p.name.as_str(), p.value.as_str(), p.at))
            .collect();
        assert_eq!(attributes, [("x", "1", at(4, 5)), ("y", ">", at(5, 4))]);
        assert_eq!((c.text.as_str(), c.text_at), ("\n  5 ", at(6, 3)));
    }

    #[test]
    fn text_is_joined_over_comments_sections_entities_and_elements() {
        let a = root("<a>22<!-- --><![CDATA[2]]>&#50;<b>no</b><?pi x?>2 &lt;&amp;</a>");
        assert_eq!(a.text, "22222 <&");
        assert_eq!(a.children[0].text, "no");
    }

    #[test]
    fn attributes_are_found_in_their_tag() {
        let found: Vec<_> = attribute_offsets("<a\n b = \"x c='1'\" d='=\"'/>").collect();
        assert_eq!(found, [("b", 4), ("d", 18)]);
        assert_eq!(attribute_offsets("<a>").count(), 0);
        let a = root("<a xmlns='urn:x' xmlns:p='urn:y' p:b='1' c='2'/>");
        let places: Vec<_> = a
            .attributes
            .iter()
            .map(|pair| (pair.name.as_str(), pair.at.column))
            .collect();
        assert_eq!(places, [("p:b", 34), ("c", 42)]);
    }

    #[test]
    fn of_a_torn_text_there_is_what_was_whole() {
        let Tree { root, fault, .. } = read("<a><b>1</b><c><d>2");
        let a = root.unwrap();
        let [b, c] = a.children.as_slice() else {
            panic!("{a:?}")
        };
        assert!(b.whole && !c.whole && !a.whole && !c.children[0].whole);
        assert_eq!(
            fault.unwrap(),
            (
                at(1, 19),
                "the file ends within <d> of line 1: want </d>".to_owned()
            )
        );
    }

    #[test]
    fn a_doctype_may_name_a_dtd_and_declare_nothing() {
        assert_eq!(
            read("\n<!DOCTYPE a SYSTEM 'x[y].dtd'>\n<a/>").doctype,
            Some(at(2, 1))
        );
        assert_eq!(
            read("<!DOCTYPE a PUBLIC \"-//x\" 'http://127.0.0.1:1/x'><a/>").doctype,
            Some(at(1, 1))
        );
        for text in [
            "<!DOCTYPE a []><a/>",
            "<!DOCTYPE a SYSTEM 'x' [<!ENTITY e 'x'>]><a/>",
        ] {
            assert_eq!(
                fault(text),
                (
                    at(1, 1),
                    "DOCTYPE with declarations: want none in the file".to_owned()
                )
            );
        }
        // What a DTD might declare is not known.
        assert_eq!(
            fault("<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a>&e;</a>").0,
            at(1, 46)
        );
    }

    #[test]
    fn depth_and_attributes_have_a_bound() {
        let deep = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(read(&deep(8)).fault.is_none());
        let (place, what) = fault(&deep(9));
        assert_eq!(place, at(1, 25));
        assert_eq!(what, "<a> stands in 8 elements: want no more than 8 deep");

        let wide = |count: usize| {
            let attributes: Vec<String> = (0..count).map(|n| format!("a{n}='1'")).collect();
            format!("<a {}/>", attributes.join(" "))
        };
        assert!(read(&wide(ATTRIBUTES_MAX)).fault.is_none());
        assert_eq!(fault(&wide(ATTRIBUTES_MAX + 1)).1, limits());
    }

    #[test]
    fn names_values_and_texts_have_a_bound() {
        let [name, value, text] = [NAME_MAX, ATTRIBUTE_MAX, DATA_MAX].map(|max| "x".repeat(max + 2));
        for long in [
            format!("<a><{name}/></a>"),
            format!("<a {name}=''/>"),
            format!("<a b='{value}'/>"),
            format!("<a>{text}</a>"),
            format!("<a><!--{text}--></a>"),
        ] {
            assert_eq!(read(&long).fault.map(|f| f.1), Some(limits()), "{long:.9}");
        }
        let many = format!("<a>{}</a>", "<b/>".repeat(ELEMENTS_MAX));
        assert_eq!(fault(&many).1, "want no more than 250000 elements");
    }

    /// Each of these took the parser alone seconds, or a gigabyte, or both. The test would not end in time.
    #[test]
    fn hostile_texts_cost_no_more_than_their_length() {
        let entity = format!(
            "<!DOCTYPE a [<!ENTITY e '{}'>]><a>{}</a>",
            "x".repeat(10_000),
            "&e;".repeat(100_000)
        );
        for text in [
            entity,
            "<a>".repeat(1_000_000),
            format!("<a{}", " b='1'".repeat(60_000)),
        ] {
            assert!(read(&text).fault.is_some());
        }
    }

    #[test]
    fn any_cut_of_a_text_is_answered() {
        let text = include_str!("../../etc/rtp_cluster.xml");
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let Tree { fault, .. } = read(&text[..end]);
            let root_is_whole = text[..end].trim_end().ends_with("</rtp_cluster_config>");
            assert_eq!(fault.is_none(), root_is_whole, "{end}");
        }
    }
}
