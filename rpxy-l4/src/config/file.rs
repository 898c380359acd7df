//! The file as TOML sees it: tables and values with their places, read key by key.
//!
//! Every value is looked at on its own, so that one wrong type does not hide the next mistake. A method that returns
//! `None` has reported why. The types of this module stay inside `config`.

use std::ops::RangeInclusive;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::{self, Scope},
    report::{Position, Report, quote},
};

/// A table of the file whose keys are known.
#[derive(Debug)]
pub(super) struct Table<'t> {
    scope: Scope,
    /// The table itself; its path is empty for the top level.
    pub(super) position: Position,
    entries: &'t DeTable<'t>,
}

impl<'t> Table<'t> {
    /// The top level of a file.
    pub(super) fn root(report: &mut Report<'_>, entries: &'t DeTable<'t>) -> Self {
        Self::new(report, Scope::Global, Position { path: String::new(), offset: 0 }, entries)
    }

    fn new(report: &mut Report<'_>, scope: Scope, position: Position, entries: &'t DeTable<'t>) -> Self {
        for key in entries.keys().filter(|key| !keys::is_known(scope, key.get_ref())) {
            let name = key.get_ref();
            let path = child(&position.path, &key_text(name, false));
            report.unknown_key(scope, name, &Position { path, offset: key.span().start });
        }
        Self { scope, position, entries }
    }

    /// The value of `key`, if the file has it.
    pub(super) fn field(&self, key: &'static str) -> Option<Field<'t>> {
        debug_assert!(keys::is_known(self.scope, key), "{key} is missing in the table of known keys");
        let (name, value) = self.entries.get_key_value(key)?;
        let position = Position { path: child(&self.position.path, key), offset: name.span().start };
        Some(Field { position, value: value.get_ref() })
    }

    /// The value of `key`, whose absence is an error.
    pub(super) fn required(&self, report: &mut Report<'_>, key: &'static str) -> Option<Field<'t>> {
        let field = self.field(key);
        if field.is_none() {
            let position = Position { path: child(&self.position.path, key), offset: self.position.offset };
            report.error(&position, "required key is missing");
        }
        field
    }
}

/// A value of the file.
#[derive(Debug)]
pub(super) struct Field<'t> {
    /// The key in front of the value, or the value itself in an array.
    pub(super) position: Position,
    value: &'t DeValue<'t>,
}

impl<'t> Field<'t> {
    /// The value as a string.
    pub(super) fn string(&self, report: &mut Report<'_>) -> Option<&'t str> {
        self.typed(report, "a string", self.value.as_str())
    }

    /// Returns whether the value is a string.
    #[cfg(feature = "proxy-protocol")]
    pub(super) fn is_string(&self) -> bool {
        self.value.as_str().is_some()
    }

    /// The value as a boolean.
    pub(super) fn boolean(&self, report: &mut Report<'_>) -> Option<bool> {
        self.typed(report, "true or false", self.value.as_bool())
    }

    /// The value as an integer within `range`.
    pub(super) fn integer<T>(&self, report: &mut Report<'_>, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + std::fmt::Display,
    {
        let integer = self.typed(report, "an integer", self.value.as_integer())?;
        let parsed =
            i128::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(|wide| T::try_from(wide).ok());
        let allowed = parsed.filter(|number| range.contains(number));
        if allowed.is_none() {
            report
                .error(&self.position, format!("{integer} is out of range, from {} to {}", range.start(), range.end()));
        }
        allowed
    }

    /// The elements of an array.
    pub(super) fn array(&self, report: &mut Report<'_>) -> Option<Vec<Field<'t>>> {
        let elements = self.typed(report, "an array", self.value.as_array())?;
        let fields = elements.iter().enumerate().map(|(index, element)| Field {
            position: Position { path: format!("{}[{index}]", self.position.path), offset: element.span().start },
            value: element.get_ref(),
        });
        Some(fields.collect())
    }

    /// The elements of an array, for a key that takes other types as well, as told by `wanted`.
    pub(super) fn array_of(&self, report: &mut Report<'_>, wanted: &str) -> Option<Vec<Field<'t>>> {
        if self.value.is_array() {
            return self.array(report);
        }
        self.wrong_type(report, wanted);
        None
    }

    /// The elements of an array, or the value itself when it is not an array.
    pub(super) fn one_or_many(&self, report: &mut Report<'_>) -> Option<Vec<Field<'t>>> {
        if self.value.is_array() {
            self.array(report)
        } else {
            Some(vec![Self { position: self.position.clone(), ..*self }])
        }
    }

    /// The strings of an array; elements that are none are reported and left out.
    pub(super) fn strings(&self, report: &mut Report<'_>) -> Option<Vec<(Position, &'t str)>> {
        let elements = self.array(report)?;
        Some(elements.into_iter().filter_map(|field| Some((field.position.clone(), field.string(report)?))).collect())
    }

    /// The value as a table with known keys.
    pub(super) fn table(&self, report: &mut Report<'_>, scope: Scope) -> Option<Table<'t>> {
        let entries = self.typed(report, "a table", self.value.as_table())?;
        Some(Table::new(report, scope, self.position.clone(), entries))
    }

    /// The entries of a table whose keys are names chosen by the operator, in file order.
    pub(super) fn named(&self, report: &mut Report<'_>) -> Option<Vec<(&'t str, Field<'t>)>> {
        let entries = self.typed(report, "a table", self.value.as_table())?;
        let mut entries: Vec<_> = entries.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let field = |(key, value): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| {
            let name: &'t std::borrow::Cow<'t, str> = key.get_ref();
            let path = child(&self.position.path, &key_text(name, true));
            (name.as_ref(), Field { position: Position { path, offset: key.span().start }, value: value.get_ref() })
        };
        Some(entries.into_iter().map(field).collect())
    }

    /// The value if it is a string, for keys that take several types.
    pub(super) fn as_string(&self) -> Option<&'t str> {
        self.value.as_str()
    }

    /// Returns whether the value is `[]`.
    pub(super) fn is_empty_array(&self) -> bool {
        self.value.as_array().is_some_and(|elements| elements.is_empty())
    }

    /// Returns whether the value is a table without entries.
    pub(super) fn is_empty_table(&self) -> bool {
        self.value.as_table().is_some_and(toml::map::Map::is_empty)
    }

    /// Returns whether the value is of this kind, for keys that take several.
    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// Returns whether the value is of this kind, for keys that take several.
    pub(super) fn is_integer(&self) -> bool {
        self.value.is_integer()
    }

    /// The value as one of a few words, in any case.
    pub(super) fn word<T: Copy>(&self, report: &mut Report<'_>, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.string(report)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            return Some(*meaning);
        }
        let remedy = match keys::nearest(text, words.iter().map(|(word, _)| *word)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("one of {}", words.iter().map(|(word, _)| quote(word)).collect::<Vec<_>>().join(", ")),
        };
        report.error_with(&self.position, format!("unknown value {}", quote(text)), remedy);
        None
    }

    /// Reports a value of another type than `wanted`.
    pub(super) fn wrong_type(&self, report: &mut Report<'_>, wanted: &str) {
        report.error(&self.position, format!("expected {wanted}, found {}", article(self.value.type_str())));
    }

    fn typed<T>(&self, report: &mut Report<'_>, wanted: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.wrong_type(report, wanted);
        }
        value
    }
}

fn article(type_name: &str) -> String {
    let article = if type_name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {type_name}")
}

fn child(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// A key as it would be written in TOML. Names of rules are always quoted, as the documentation does.
fn key_text(key: &str, always_quoted: bool) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if bare && !always_quoted { key.to_owned() } else { quote(key) }
}
