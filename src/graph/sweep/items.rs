//! `each:`: the items a node, and all it feeds, runs with one by one.

use std::path::Path;

use crate::{
    Diagnostic, Diagnostics, Files, Literal, Overrides, Workflow,
    check::Settings,
    files::FileProblem,
    inputs::InputType,
    sweep::MOST,
    workflow::{Item, Items, Spanned},
};

impl Workflow {
    /// The items of the lists that nodes run over, of several lists all combinations; `None` when no node has an `each:`.
    pub(super) fn items(
        &self,
        overrides: &Overrides,
        files: &Files,
    ) -> Result<Option<Vec<Items>>, Diagnostics> {
        let mut lists: Vec<&Spanned<String>> = Vec::new();
        for list in self.nodes.values().filter_map(|node| node.each.as_ref()) {
            if !lists.iter().any(|known| known.value == list.value) {
                lists.push(list);
            }
        }
        if lists.is_empty() {
            return Ok(None);
        }
        let mut all = vec![Vec::new()];
        for list in lists {
            let items = self.listed(list, overrides, files)?;
            let count = all.len().saturating_mul(items.len());
            if count > MOST {
                let message = format!("{count} combinations of items, at most {MOST} are run");
                return Err(Diagnostic::error("too-many-runs", message).at(list.span.clone()).into());
            }
            let step = |before: &Vec<Item>| {
                let with = |item: &Item| before.iter().chain([item]).cloned().collect();
                items.iter().map(with).collect::<Vec<Vec<Item>>>()
            };
            all = all.iter().flat_map(step).collect();
        }
        Ok(Some(all.into_iter().enumerate().map(|(index, of)| Items { index, of }).collect()))
    }

    fn listed(
        &self,
        list: &Spanned<String>,
        overrides: &Overrides,
        files: &Files,
    ) -> Result<Vec<Item>, Diagnostics> {
        let wrong = |id, message: String, hint: &str| {
            Diagnostics(vec![Diagnostic::error(id, message).at(list.span.clone()).hint(hint.to_owned())])
        };
        let values = match list.value.strip_prefix('$') {
            None => vec![Literal::from(list.value.as_str())],
            Some(name) => {
                let Some(decl) = self.inputs.get(name) else {
                    let hint = "declare it: `photos: { type: list, default: photos/*.png }`";
                    return Err(wrong(
                        "unknown-name",
                        format!("`${name}` is no input of this workflow"),
                        hint,
                    ));
                };
                if decl.ty != InputType::List {
                    let message = format!("`each` runs over a list, `{name}` is of type {}", decl.ty.name());
                    return Err(wrong("wrong-type", message, "give it `type: list`"));
                }
                let mut problems = Diagnostics::default();
                let settings = Settings::resolve(self, overrides, &mut problems);
                match settings.inputs.get(name).cloned().flatten() {
                    Some(Literal::List(values)) => values,
                    _ if problems.has_errors() => return Err(problems),
                    _ => {
                        return Err(wrong(
                            "missing-value",
                            format!("`{name}` is empty"),
                            "give it items, or a folder",
                        ));
                    }
                }
            }
        };
        let mut items = Vec::new();
        for value in values {
            match &value {
                // It would mean the folder of the workflow and all that is in it.
                Literal::Text(text) if text.trim().is_empty() => {
                    let message = format!("an item of `{}` is an empty text", list.value);
                    return Err(wrong(
                        "missing-value",
                        message,
                        "name a picture, a pattern or a folder; `.` is the workflow's own",
                    ));
                }
                Literal::Text(text) => match files.matching(text) {
                    Ok(Some(names)) => items.extend(names.into_iter().map(Literal::from)),
                    Ok(None) => items.push(value),
                    Err(FileProblem::Missing { .. }) => {
                        let message = format!("no file matches `{text}`");
                        return Err(wrong(
                            "missing-file",
                            message,
                            "folders are looked up as pictures are; name another one to look in with `--input DIR`",
                        ));
                    }
                    Err(FileProblem::Outside { .. }) => {
                        let message = format!("`{text}` leads out of the folders a run may read");
                        return Err(wrong("outside-roots", message, "add a folder with --input"));
                    }
                },
                _ => items.push(value),
            }
        }
        if items.is_empty() {
            return Err(wrong(
                "missing-value",
                "there is nothing to run over".into(),
                "give the list an item",
            ));
        }
        Ok(items.into_iter().enumerate().map(|(index, value)| item(&list.value, index, value)).collect())
    }
}

fn item(list: &str, index: usize, value: Literal) -> Item {
    let text = value.to_string();
    let stem = Path::new(&text).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = match &value {
        Literal::Text(_) => stem.unwrap_or(text),
        _ => text,
    };
    Item { list: list.to_owned(), value, name, index }
}
