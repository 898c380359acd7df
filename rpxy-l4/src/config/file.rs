//! The file as TOML sees it: tables and values with their places, read key by key.
//!
//! Every value is looked at on its own, so that one wrong type does not hide the next mistake. A method that returns
//! `None` has reported why. The types of this module stay inside `config`.

use std::{collections::HashSet, ops::RangeInclusive};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::{self, Scope},
    report::{Position, Report, quote},
};

/// A table of the file whose keys are known.
#[derive(Debug, Clone)]
pub(super) struct Table<'t> {
    scope: Scope,
    /// The table itself; its path is empty for the top level.
    pub(super) position: Position,
    /// Its entries; those of the top level may come from several files.
    entries: Vec<Entries<'t>>,
    /// The top level, for a listener, which inherits from it.
    above: Vec<Entries<'t>>,
    /// Other tables inherit from this one.
    has_heirs: bool,
}

impl<'t> Table<'t> {
    /// The top level of several files. What they have in common are tables of tables; all else may be said once.
    pub(super) fn root(report: &mut Report<'_>, files: Vec<Entries<'t>>) -> Self {
        let position = Position { path: String::new(), offset: 0 };
        refuse_repeated(report, &files);
        let root = Self::new(report, Scope::Global, position, files);
        let has_heirs = root.has_any("listeners");
        Self { has_heirs, ..root }
    }

    fn new(report: &mut Report<'_>, scope: Scope, position: Position, entries: Vec<Entries<'t>>) -> Self {
        for Entries { table, base } in &entries {
            for key in table.keys().filter(|key| !keys::is_known(scope, key.get_ref())) {
                let name = key.get_ref();
                let path = child(&position.path, &key_text(name, false));
                report.unknown_key(scope, name, &Position { path, offset: base + key.span().start });
            }
        }
        Self { scope, position, entries, above: Vec::new(), has_heirs: false }
    }

    /// All values of a key whose tables may be in several files.
    fn named_tables(&self, key: &'static str) -> impl Iterator<Item = Field<'t>> {
        debug_assert!(keys::is_known(self.scope, key), "{key} is missing in the table of known keys");
        self.entries.iter().filter_map(move |entries| entries.get("", key))
    }

    /// Returns whether there is anything below `key`, right or wrong.
    pub(super) fn has_any(&self, key: &'static str) -> bool {
        self.named_tables(key).any(|field| field.value.as_table().is_none_or(|tables| !tables.is_empty()))
    }

    /// The tables below `key`, whose names are chosen by the operator, in the order of the files.
    pub(super) fn named(&self, report: &mut Report<'_>, key: &'static str) -> Vec<(&'t str, Field<'t>)> {
        self.named_tables(key).filter_map(|field| field.named(report)).flatten().collect()
    }

    /// The value of `key`, of the table itself or inherited.
    pub(super) fn field(&self, key: &'static str) -> Option<Field<'t>> {
        let inherited = || if keys::is_inherited(key) { find(&self.above, "", key) } else { None };
        self.own(key).or_else(inherited)
    }

    /// The value of `key`, if the table itself has it.
    pub(super) fn own(&self, key: &'static str) -> Option<Field<'t>> {
        debug_assert!(keys::is_known(self.scope, key), "{key} is missing in the table of known keys");
        find(&self.entries, &self.position.path, key)
    }

    /// Warns that the value of `key` has no effect here, unless it is another table's, or has one there.
    pub(super) fn warn_unused(&self, report: &mut Report<'_>, key: &'static str, message: &str, remedy: Option<&str>) {
        let Some(field) = self.own(key).filter(|_| !self.has_heirs) else { return };
        match remedy {
            Some(remedy) => report.warn_with(&field.position, message, remedy),
            None => report.warn(&field.position, message),
        }
    }

    /// Returns whether the table inherits from another one, and says one of `keys` itself.
    pub(super) fn overrides(&self, keys: &[&'static str]) -> bool {
        !self.above.is_empty() && keys.iter().any(|key| self.own(key).is_some())
    }

    /// Returns whether other tables inherit from this one.
    pub(super) fn has_heirs(&self) -> bool {
        self.has_heirs
    }

    /// The value of `listen_port`, whose absence is an error.
    pub(super) fn required_port(&self, report: &mut Report<'_>) -> Option<Field<'t>> {
        let field = self.field("listen_port");
        if field.is_none() {
            let path = child(&self.position.path, "listen_port");
            let position = Position { path, offset: self.position.offset };
            report.missing(&position, "required key is missing", &["listen_port"], None);
        }
        field
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

/// Entries of a table in one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entries<'t> {
    pub(super) table: &'t DeTable<'t>,
    /// Where the file begins ([`Report::add_file`]).
    pub(super) base: usize,
}

impl<'t> Entries<'t> {
    /// The value of `include` in this file.
    pub(super) fn include(&self) -> Option<Field<'t>> {
        self.get("", "include")
    }

    fn get(&self, path: &str, key: &str) -> Option<Field<'t>> {
        let (name, value) = self.table.get_key_value(key)?;
        let position = Position { path: child(path, key), offset: self.base + name.span().start };
        Some(Field { position, base: self.base, value: value.get_ref() })
    }
}

fn find<'t>(entries: &[Entries<'t>], path: &str, key: &str) -> Option<Field<'t>> {
    entries.iter().find_map(|entries| entries.get(path, key))
}

/// Keys of several files that may be in one of them only.
fn refuse_repeated(report: &mut Report<'_>, files: &[Entries<'_>]) {
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for entries in files {
        for (key, value) in entries.table.iter() {
            let name: &str = key.get_ref();
            let tables = value.get_ref().as_table().filter(|_| keys::NAMED_TABLES.contains(&name));
            let below = tables.into_iter().flat_map(|tables| tables.keys());
            let own = tables.is_none().then_some(key);
            for (below, key) in own.map(|key| ("", key)).into_iter().chain(below.map(|key| (name, key))) {
                let said: &str = key.get_ref();
                if !seen.insert((below, said)) {
                    let path = child(below, &key_text(said, !below.is_empty()));
                    let position = Position { path, offset: entries.base + key.span().start };
                    report.error_with(&position, "is in another file, too", "keep one of them");
                }
            }
        }
    }
}

/// A value of the file.
#[derive(Debug, Clone)]
pub(super) struct Field<'t> {
    /// The key in front of the value, or the value itself in an array.
    pub(super) position: Position,
    /// Where its file begins.
    base: usize,
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
            position: Position {
                path: format!("{}[{index}]", self.position.path),
                offset: self.base + element.span().start,
            },
            base: self.base,
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

    /// The strings of an array, or the string alone; elements that are none are reported and left out.
    pub(super) fn one_or_many_strings(&self, report: &mut Report<'_>) -> Option<Vec<(Position, &'t str)>> {
        let elements = self.one_or_many(report)?;
        Some(elements.into_iter().filter_map(|field| Some((field.position.clone(), field.string(report)?))).collect())
    }

    /// The strings of an array; elements that are none are reported and left out.
    pub(super) fn strings(&self, report: &mut Report<'_>) -> Option<Vec<(Position, &'t str)>> {
        let elements = self.array(report)?;
        Some(elements.into_iter().filter_map(|field| Some((field.position.clone(), field.string(report)?))).collect())
    }

    /// The value as a table with known keys.
    pub(super) fn table(&self, report: &mut Report<'_>, scope: Scope) -> Option<Table<'t>> {
        let entries = self.typed(report, "a table", self.value.as_table())?;
        Some(Table::new(report, scope, self.position.clone(), vec![Entries { table: entries, base: self.base }]))
    }

    /// The value as the table of a listener, which inherits from `root`.
    pub(super) fn listener(&self, report: &mut Report<'_>, root: &Table<'t>) -> Option<Table<'t>> {
        let table = self.table(report, Scope::Listener)?;
        Some(Table { above: root.entries.clone(), ..table })
    }

    /// The entries of a table whose keys are names chosen by the operator, in file order.
    fn named(&self, report: &mut Report<'_>) -> Option<Vec<(&'t str, Field<'t>)>> {
        let entries = self.typed(report, "a table", self.value.as_table())?;
        let mut entries: Vec<_> = entries.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let field = |(key, value): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| {
            let name: &'t std::borrow::Cow<'t, str> = key.get_ref();
            let path = child(&self.position.path, &key_text(name, true));
            let position = Position { path, offset: self.base + key.span().start };
            (name.as_ref(), Field { position, base: self.base, value: value.get_ref() })
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
