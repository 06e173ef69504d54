//! Rules and resources of SQL as JSON, from the API and from the file that keeps them, and SQL that is tried
//! on an event. What was taken is kept, and read again it is the same.
#![no_main]

use headgate::rule_engine::definition::{Definition, Ids};
use headgate::rule_engine::{ACTIONS_MAX, ResourceDefinition, run_sample};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

struct Counting(u32);

impl Ids for Counting {
    fn resource_kind(&self, id: &str) -> Option<&'static str> {
        match id {
            "w" => Some("web_hook"),
            "b" => Some("bridge_mqtt"),
            _ => None,
        }
    }

    fn digits(&mut self) -> u32 {
        self.0 += 1;
        self.0
    }

    fn stamp(&mut self) -> u64 {
        u64::from(self.digits())
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(Value::Object(asked)) = serde_json::from_slice(data) else {
        return;
    };
    let mut ids = Counting(0);
    match Definition::read(&asked, None, &mut ids) {
        Ok(made) => {
            assert!(made.actions.len() <= ACTIONS_MAX);
            let kept = made.to_json();
            let again = Definition::read(kept.as_object().unwrap(), None, &mut ids).unwrap();
            assert_eq!(again.to_json(), kept);
            let changed = Definition::read(&asked, Some(&made), &mut ids).unwrap();
            assert_eq!(changed.id, made.id);
        }
        Err(bad) => assert!(!bad.to_string().is_empty()),
    }
    if let Ok(made) = ResourceDefinition::read(&asked, None, &mut ids) {
        let kept = made.to_json();
        let again = ResourceDefinition::read(kept.as_object().unwrap(), None, &mut ids).unwrap();
        assert_eq!(again.to_json(), kept);
    }
    if let (Some(Value::String(sql)), Some(Value::Object(given))) =
        (asked.get("rawsql"), asked.get("ctx"))
    {
        assert!(run_sample(sql, given, "node").map_or(true, |rows| !rows.is_empty()));
    }
});
