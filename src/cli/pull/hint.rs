//! What to say of a missing model that can be fetched.

use flow_graph::{Diagnostic, Diagnostics};

use super::catalogue::Catalogue;

/// The same problems; where the catalogue knows what is missing, with the command that fetches it.
pub fn with_fetching(problems: &Diagnostics) -> Diagnostics {
    let mut problems = problems.clone();
    for problem in &mut problems.0 {
        if let Some(fetching) = fetching(problem) {
            let hint = problem.hint.take().map_or_else(String::new, |hint| format!("; {hint}"));
            problem.hint = Some(format!("{fetching}{hint}"));
        } else if let (Some(_), Some(hint)) = (&problem.missing, &mut problem.hint)
            && hint.starts_with("put it into")
        {
            // Nothing there looks like it, and it is none that is known.
            hint.push_str("; `flow pull --list` shows what can be fetched");
        }
    }
    problems
}

/// The command that fetches what is missing, if the catalogue knows it.
pub fn fetching(problem: &Diagnostic) -> Option<String> {
    let catalogue = Catalogue::known();
    let Some(missing) = &problem.missing else {
        // A node that looks for a file by what is in it says which one to "put `there`".
        let file = problem.hint.as_ref()?.strip_prefix("put `")?.split('`').next()?;
        return Some(format!("`flow pull {}` fetches it", catalogue.named(file)?.0.name));
    };
    let entry = catalogue.file(&missing.folder, &missing.name)?;
    let file = entry.file_for(&missing.name);
    let command = format!("`flow pull {}` fetches", entry.command(&missing.name));
    Some(match same(&missing.name, file) {
        true => format!("{command} it"),
        false => format!("{command} the same model as `{file}`; name that"),
    })
}

/// Whether a workflow that has `name` finds `file`: with or without its ending, in any sub-folder.
fn same(name: &str, file: &str) -> bool {
    let own = name.rsplit(['/', '\\']).next().unwrap_or(name);
    own == file
        || file.strip_prefix(own).is_some_and(|ending| ending.starts_with('.') && !ending[1..].contains('.'))
}

#[cfg(test)]
mod tests {
    use flow_graph::diag::MissingModel;

    use super::*;

    #[test]
    fn a_model_of_another_ending_is_offered_under_its_own_name() {
        let mut problem = Diagnostic::error("missing-file", "no file");
        let name = "SD1.5/control_v11p_sd15_canny.pth".to_owned();
        problem.missing = Some(MissingModel { folder: "controlnet".to_owned(), name });
        let hint = "`flow pull sd15-canny` fetches the same model as `control_v11p_sd15_canny_fp16.safetensors`; name that";
        assert_eq!(fetching(&problem).unwrap(), hint);
        let shown = with_fetching(&problem.hint("searched `models`".to_owned()).into());
        assert_eq!(shown.0[0].hint.as_deref(), Some(&*format!("{hint}; searched `models`")));
    }

    #[test]
    fn a_name_is_found_with_or_without_its_ending() {
        assert!(same("sub/a.b.safetensors", "a.b.safetensors") && same("a.b", "a.b.safetensors"));
        assert!(!same("a", "a.b.safetensors") && !same("a.b.pth", "a.b.safetensors"));
    }

    #[test]
    fn what_a_node_says_to_put_there_is_offered_too() {
        let problem = Diagnostic::error("node-failed", "no adapter");
        let hint = "put `ip-adapter_sd15.safetensors` there, or choose another preset".to_owned();
        assert_eq!(fetching(&problem.clone().hint(hint)).unwrap(), "`flow pull sd15-ip-adapter` fetches it");
        assert_eq!(fetching(&problem.hint("put `nothing.safetensors` there".to_owned())), None);
    }
}
