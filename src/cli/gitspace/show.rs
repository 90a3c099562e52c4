//! How gitspaces are printed.

use crate::{
    api::gitspace::Gitspace,
    cli::{Failure, output},
};

pub(super) fn list(gitspaces: &[Gitspace], json: bool) -> Result<(), Failure> {
    if json {
        return output::json(&gitspaces);
    }
    if gitspaces.is_empty() {
        output::say("no gitspaces; make one with `cde-gateway gitspace create <repository>`");
        return Ok(());
    }
    let rows: Vec<_> = gitspaces.iter().map(row).collect();
    output::data(&output::table(
        &["ID", "STATE", "IDE", "REPOSITORY", "URL"],
        &rows,
    ))
}

fn row(gitspace: &Gitspace) -> Vec<String> {
    vec![
        gitspace.id.to_string(),
        gitspace.state.to_string(),
        gitspace.ide.to_string(),
        gitspace.repository.clone(),
        gitspace.url.clone(),
    ]
}

pub(super) fn one(gitspace: &Gitspace, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(gitspace);
    }
    let ports: Vec<_> = gitspace
        .ports
        .iter()
        .map(|forwarded| forwarded.port.to_string())
        .collect();
    let mut lines = vec![
        format!("id          {}", gitspace.id),
        format!("owner       {}", gitspace.owner),
        format!("state       {}", gitspace.state),
    ];
    lines.extend(
        gitspace
            .message
            .iter()
            .map(|why| format!("message     {why}")),
    );
    lines.push(format!("repository  {}", gitspace.repository));
    lines.extend(
        gitspace
            .branch
            .iter()
            .map(|name| format!("branch      {name}")),
    );
    lines.push(format!("ide         {}", gitspace.ide));
    lines.push(format!("ports       {}", ports.join(" ")));
    lines.push(format!("url         {}", gitspace.url));
    lines.push(format!("created     {}", gitspace.created));
    let steps = gitspace.events.iter();
    lines.extend(steps.map(|step| format!("step        {}  {}", step.time, step.message)));
    let lines: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
    output::data(&lines.join("\n"))
}
