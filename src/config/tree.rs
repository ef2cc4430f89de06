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
        // The text is UTF-8, whatever it declares. Comments and blanks are asked for, though not needed: the parser
        // joins no text over them, which keeps each of its buffers within DATA_MAX.
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

    /// The parser's error with what stands open around it.
    fn explained(&mut self, error: &xml::reader::Error) -> (Position, String) {
        let inside = self
            .open
            .last()
            .map(|node| format!("<{}> of line {}", node.name, node.at.line));
        let message = match error.kind() {
            ErrorKind::Syntax(message) => message.as_ref(),
            _ => "Unexpected end of stream",
        };
        if message.starts_with("Unexpected end of stream") {
            let want = match self.open.last() {
                Some(node) => format!(
                    "the file ends inside {}: want </{}>",
                    inside.unwrap_or_default(),
                    node.name
                ),
                None => "the file ends before any element: want <rtp_cluster_config>".to_owned(),
            };
            return (self.place.of(self.text.len()), want);
        }
        let at = error.position();
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).saturating_add(1);
        let at = Position {
            line: number(at.row()),
            column: number(at.column()),
        };
        let mut what = String::from("not XML: ");
        let mut words = message.chars();
        what.extend(words.next().into_iter().flat_map(char::to_lowercase));
        what.push_str(words.as_str().lines().next().unwrap_or(""));
        (
            at,
            what + &inside.map_or(String::new(), |inside| format!(" (in {inside})")),
        )
    }
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
