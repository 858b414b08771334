//! `rads c volumes`: where the files are that outlive stars, and the end of those that nobody has.

use api::Client;
use model::{Bytes, Code, Problem};

use crate::cli::{Form, VolumesArgs, VolumesCommand};
use crate::screen::{self, Table};

pub(crate) async fn volumes(client: &Client, args: VolumesArgs, form: Form) -> Result<u8, Problem> {
    if let Some(VolumesCommand::Delete { volume, yes }) = args.command {
        let volumes = client.volumes().await?;
        let known = volumes.iter().find(|view| view.volume == volume);
        let known = known.ok_or_else(|| {
            Problem::new(Code::NotFound, format!("no volume `{volume}`")).help("`rads c volumes` lists them")
        })?;
        if !yes && known.services.is_empty() {
            let held = known.bytes.map_or_else(|| "files".to_owned(), |bytes| Bytes(bytes).to_string());
            screen::note(format!("volume `{volume}` holds {held}, which would be gone for good"));
            match screen::ask("delete it?")? {
                Some(true) => {}
                Some(false) => return Ok(0),
                None => {
                    let message = format!("volume `{volume}` would be deleted with its files");
                    return Err(Problem::new(Code::Usage, message).help("use `--yes` where nobody can be asked"));
                }
            }
        }
        client.delete_volume(&volume).await?;
        match form {
            Form::Json => screen::json(&volume)?,
            Form::Text => screen::line(format!("{volume}: deleted")),
        }
        return Ok(0);
    }
    let volumes = client.volumes().await?;
    if form == Form::Json {
        screen::json(&volumes)?;
        return Ok(0);
    }
    if volumes.is_empty() {
        screen::note("no volumes; a service that names one in `volumes: {\"/data\": \"pages\"}` makes it");
        return Ok(0);
    }
    let mut table = Table::new(&["VOLUME", "NODE", ">ON DISK", "SERVICES"]);
    for view in &volumes {
        let services: Vec<String> = view.services.iter().map(ToString::to_string).collect();
        table.row([
            view.volume.to_string(),
            view.node.clone(),
            view.bytes.map_or_else(|| "?".to_owned(), |bytes| Bytes(bytes).to_string()),
            if services.is_empty() { "-".to_owned() } else { services.join(", ") },
        ]);
    }
    screen::print(&table.render());
    Ok(0)
}
