//! The schema against the checker: keys, types, words and numbers are the same, and the example file fits.

use serde_json::Value;

use super::{load::file_with, parse};
use crate::config::{
    keys::{self, Scope},
    schema::{Kind, kind, required, schema},
};

const EXAMPLE: &str = include_str!("../../../../config.example.toml");

/// What the checker says about a key with this value, or about an element of it: messages with their remedies.
fn said_about(scope: Scope, key: &str, value: &str) -> Vec<String> {
    let (text, path) = file_with(scope, key, value);
    let problems = match parse(&text) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems.iter().cloned().collect(),
    };
    let here = problems.into_iter().filter(|problem| [path.clone(), format!("{path}[0]")].contains(&problem.path));
    here.map(|problem| format!("{} ({})", problem.message, problem.remedy.unwrap_or_default())).collect()
}

/// Returns whether `value` fits `schema`, as far as this file's schema goes.
fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(name) = schema["$ref"].as_str() {
        let definition = root.pointer(name.strip_prefix('#').unwrap()).expect(name);
        return fits(root, definition, value);
    }
    let is = |name: &Value| match name.as_str().unwrap() {
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other}"),
    };
    let types = &schema["type"];
    let typed = types.as_array().map_or_else(|| types.is_null() || is(types), |names| names.iter().any(is));
    let one_of = schema["enum"].as_array().is_none_or(|words| words.contains(value));
    let any_of = schema["anyOf"].as_array().is_none_or(|schemas| schemas.iter().any(|one| fits(root, one, value)));
    let bounded = value.as_i64().is_none_or(|number| {
        schema["minimum"].as_i64().is_none_or(|least| number >= least)
            && schema["maximum"].as_i64().is_none_or(|most| number <= most)
    });
    let elements = value.as_array().is_none_or(|elements| {
        schema["items"].is_null() || elements.iter().all(|element| fits(root, &schema["items"], element))
    });
    let entries = value.as_object().is_none_or(|entries| {
        entries.iter().all(|(key, value)| match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) => true,
            (Value::Null, Value::Bool(allowed)) => *allowed,
            (Value::Null, others) => fits(root, others, value),
            (own, _) => fits(root, own, value),
        })
    });
    let complete = value.as_object().is_none_or(|entries| {
        schema["required"]
            .as_array()
            .is_none_or(|keys| keys.iter().all(|key| entries.contains_key(key.as_str().unwrap())))
    });
    typed && one_of && any_of && bounded && elements && entries && complete
}

#[test]
fn every_key_has_a_kind_and_no_other_has() {
    let schema = schema();
    for (scope, key) in keys::known() {
        assert!(kind(scope, key).is_some(), "{key} ({scope:?})");
    }
    let properties = schema["properties"].as_object().unwrap();
    assert!(properties.keys().all(|key| keys::is_known(Scope::Global, key)), "{properties:?}");
    assert_eq!(properties.len(), keys::known().filter(|(scope, _)| *scope == Scope::Global).count());
}

#[test]
fn the_checker_wants_the_same_types() {
    for (scope, key) in keys::known() {
        let kind = kind(scope, key).unwrap();
        for (sample, takes) in [
            (
                "'?'",
                !matches!(
                    kind,
                    Kind::Switch | Kind::Integer(..) | Kind::Texts | Kind::Table(_) | Kind::Named(_) | Kind::Array(_)
                ),
            ),
            (
                "1",
                matches!(
                    kind,
                    Kind::Integer(..) | Kind::TextOrInteger(..) | Kind::Duration | Kind::Ports | Kind::Statuses
                ),
            ),
            ("true", matches!(kind, Kind::Switch | Kind::SwitchOr(_))),
            (
                "['?']",
                matches!(kind, Kind::Texts | Kind::OneOrMoreTexts | Kind::Ports | Kind::Targets | Kind::Statuses),
            ),
            ("[1]", matches!(kind, Kind::Ports | Kind::Statuses)),
            ("{}", matches!(kind, Kind::Table(_) | Kind::Named(_) | Kind::Targets | Kind::Bytes)),
            ("[{}]", matches!(kind, Kind::Array(_) | Kind::Targets)),
        ] {
            let said = said_about(scope, key, sample);
            let refused = said.iter().any(|text| text.starts_with("expected ") && text.contains(", found "));
            assert_eq!(!refused, takes, "{key} = {sample} ({scope:?}, {kind:?}): {said:?}");
        }
    }
}

#[test]
fn the_checker_knows_the_same_words() {
    for (scope, key) in keys::known() {
        let words = match kind(scope, key) {
            Some(Kind::Words(words)) => words,
            Some(Kind::SwitchOr(word)) => &[word],
            _ => continue,
        };
        let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let mut expected = quoted.clone();
        expected.sort();
        let said = said_about(scope, key, "'?'");
        let list = said.iter().find_map(|text| text.strip_prefix("unknown value \"?\" (one of ")?.strip_suffix(')'));
        let mut found: Vec<&str> = list.unwrap_or_else(|| panic!("{key}: {said:?}")).split(", ").collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{key} ({scope:?})");
    }
}

#[test]
fn the_checker_has_the_same_bounds() {
    for (scope, key) in keys::known() {
        let (least, most) = match kind(scope, key) {
            Some(Kind::Integer(least, most) | Kind::TextOrInteger(least, most)) => {
                (least.to_string(), most.to_string())
            }
            Some(Kind::Ports) => ("1".to_owned(), u16::MAX.to_string()),
            Some(Kind::Duration) => ("0".to_owned(), u64::MAX.to_string()),
            _ => continue,
        };
        let expected = format!("-1 is out of range, from {least} to {most} ()");
        let said = said_about(scope, key, "-1");
        assert!(said.contains(&expected), "{key} ({scope:?}): {said:?}");
        let [least, most]: [i128; 2] = [&least, &most].map(|number| number.parse().unwrap());
        for (row, number, takes) in [
            ("below the bounds", least - 1, false),
            ("the least", least, true),
            ("the most", most, true),
            ("above the bounds", most + 1, false),
        ] {
            // TOML has no larger numbers.
            let Ok(number) = i64::try_from(number) else { continue };
            let said = said_about(scope, key, &number.to_string());
            let refused = said.iter().any(|text| text.starts_with(&format!("{number} is out of range")));
            assert_eq!(refused, !takes, "{row}: {key} = {number} ({scope:?}): {said:?}");
        }
    }
}

#[test]
fn no_key_minds_the_largest_numbers() {
    let samples =
        ["9223372036854775807", "-9223372036854775808", "'9223372036854775807s'", "'999999999999y'", "1e308", "nan"];
    for (scope, key) in keys::known() {
        for sample in samples {
            // A mistake or not: it is said, and nothing is computed with it that overflows.
            let (text, path) = file_with(scope, key, sample);
            let _either = parse(&text).map_err(|problems| assert!(!problems.to_string().is_empty(), "{path}"));
        }
    }
}

#[test]
fn the_same_keys_are_required() {
    for (scope, empty) in [
        (Scope::Rule, "[protocols.a]"),
        (Scope::EchPrivate, "[[protocols.a.ech.private]]"),
        (Scope::Target, "[[tcp_target]]"),
        (Scope::Health, "[health.a]"),
        (Scope::Bytes, "[health.a.send]"),
    ] {
        let problems = parse(empty).unwrap_err();
        let missing = |key: &str| {
            problems.iter().any(|problem| {
                problem.message == "required key is missing"
                    && problem.path.ends_with(&format!(".{key}"))
                    && (scope != Scope::EchPrivate || problem.path.contains("private"))
            })
        };
        for (_, key) in keys::known().filter(|(of, _)| *of == scope) {
            assert_eq!(missing(key), required(scope).contains(&key), "{key} ({scope:?}): {problems}");
        }
    }
}

#[test]
fn the_example_fits() {
    let schema = schema();
    let all = super::example::all_switched_on();
    for text in [EXAMPLE, &all] {
        let value: Value = toml::from_str(text).unwrap();
        for (key, value) in value.as_object().unwrap() {
            // One without the feature has keys that are not known.
            if keys::is_known(Scope::Global, key) && cfg!(feature = "proxy-protocol") {
                assert!(fits(&schema, &schema["properties"][key], value), "{key} = {value}");
            }
        }
    }
    let wrong: Value = toml::from_str("protocols.a = { protocol = 'tls', target = 'a:1', targets = 1 }").unwrap();
    assert!(!fits(&schema, &schema, &wrong));
}
