//! What a person may have done about who comes in and who is believed, and what is shown of it. Only controllers do it: they
//! hold the authority.

use std::collections::BTreeSet;

use api::{AuthorityView, CertificateView, CertificatesView, Invitation, Invite, TokenView};
use model::{Code, JoinTicket, Name, NodeId, NodeRole, Problem, Standing, WallTime};
use net::identity::{Token, pem};
use state::security::short;
use state::{Command, State};

use super::registrar::{Log, Registrar};
use super::security;

/// Fewest digits of a hash that name a token.
const DIGITS_MIN: usize = 8;

impl<L: Log> Registrar<L> {
    /// Makes a token.
    ///
    /// # Errors
    /// `InvalidValue` when it would be good for too long or too many.
    pub(crate) async fn invite(&self, invite: Invite) -> Result<Invitation, Problem> {
        let Invite { role, uses, .. } = invite;
        if let Some(invitation) = self.answered().await? {
            return Ok(invitation);
        }
        let state = self.log().look(security::members).await?;
        let now = self.now();
        let (authority, _) = security::issuer(security::of(&state)?, self.ring())?;
        let (token, ticket) = Token::generate(authority.cluster(), authority.pin(), role, uses, invite.life(), now);
        let invitation = Invitation { token: token.reveal().to_string(), role, uses, expires: ticket.expires };
        self.held_once(Command::AddTicket { ticket, wall: now }, invitation, &state).await
    }

    /// Takes the token back whose id begins so.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not the only one.
    pub(crate) async fn uninvite(&self, id: &str) -> Result<TokenView, Problem> {
        if let Some(taken_back) = self.answered().await? {
            return Ok(taken_back);
        }
        let state = self.log().look(security::members).await?;
        let ticket = one_of(&security::of(&state)?.tickets, id)?.clone();
        self.held_once(Command::RemoveTicket { hash: ticket.hash, wall: self.now() }, view(&ticket), &state).await
    }

    /// Has nothing believed any more that a node was given.
    ///
    /// # Errors
    /// `Conflict` when it is shut out already, or would leave nobody who could let it in again.
    pub(crate) async fn shut_out(&self, node: NodeId) -> Result<(), Problem> {
        if self.is_done().await? {
            return Ok(());
        }
        let state = self.log().look(security::members).await?;
        self.held(Command::RevokeCertificates { node, wall: self.now() }, &state).await
    }

    /// Has a command written that would hold, and sees that it did: by that it would not hold again.
    pub(crate) async fn held(&self, command: Command, state: &State) -> Result<(), Problem> {
        if api::keyed::current().is_some() {
            return self.written_once(command, None, state).await;
        }
        if let Some(problem) = security::refusal(state, &command) {
            return Err(problem);
        }
        self.log().write(self.asked(command.clone())).await?;
        let state = self.log().look(security::members).await?;
        match security::refusal(&state, &command) {
            Some(_) => Ok(()),
            None => Err(Problem::new(Code::Conflict, "the constellation has changed meanwhile").help("try it again")),
        }
    }
}

/// The one ticket whose id begins so.
fn one_of<'t>(tickets: &'t [JoinTicket], id: &str) -> Result<&'t JoinTicket, Problem> {
    let shown: String = id.chars().take(80).collect();
    let shown = shown.escape_debug();
    if id.len() < DIGITS_MIN || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let help = match id.starts_with("rads1_") {
            true => "this is the token itself; `rads c token list` shows its id",
            false => "`rads c token list` shows those there are",
        };
        // A token may be good yet: it is not said again.
        let message = match id.starts_with("rads1_") {
            true => "a token is named by its id, eight digits or more".to_owned(),
            false => format!("`{shown}` is no id of a token: eight digits or more"),
        };
        return Err(Problem::new(Code::InvalidValue, message).help(help));
    }
    let id = id.to_ascii_lowercase();
    let mut found = tickets.iter().filter(|ticket| ticket.hash.to_string().starts_with(&id));
    match (found.next(), found.next()) {
        (Some(ticket), None) => Ok(ticket),
        (None, _) => Err(Problem::new(Code::NotFound, format!("no token `{shown}`"))
            .help("`rads c token list` shows those there are; one that has run out is gone already")),
        _ => Err(Problem::new(Code::Conflict, format!("more than one token begins with `{shown}`"))),
    }
}

fn view(ticket: &JoinTicket) -> TokenView {
    let JoinTicket { hash, role, expires, uses_max, uses } = *ticket;
    TokenView { id: short(hash), role, uses_max, uses, expires }
}

/// Tokens that have not run out, the one that does so first first.
pub(crate) fn tokens(state: &State, now: WallTime) -> Result<Vec<TokenView>, Problem> {
    let tickets = security::of(state)?.tickets.iter().filter(|ticket| ticket.expires > now);
    let mut views: Vec<TokenView> = tickets.map(view).collect();
    views.sort_by_key(|view| view.expires);
    Ok(views)
}

/// Authorities, and what each node has.
pub(crate) fn certificates(state: &State, now: WallTime) -> Result<CertificatesView, Problem> {
    let known = security::of(state)?;
    let name = |node: NodeId| state.nodes.get(&node).map(|record| record.name.clone());
    let authorities = security::authorities(known)?.into_iter().zip(&known.authorities).enumerate();
    let authorities = authorities.map(|(at, (sealed, record))| {
        let needed_by: BTreeSet<Name> = state.need_authority(record.id, now).filter_map(name).collect();
        AuthorityView {
            id: short(record.id),
            issues: at == 0,
            not_after: sealed.not_after,
            needed_by: needed_by.into_iter().collect(),
            certificate: pem::certificates(&[sealed.certificate.into()]),
        }
    });
    let nodes = state.nodes.iter().filter(|(_, record)| record.standing != Standing::Left);
    let nodes = nodes.filter_map(|(node, record)| {
        let newest = known.certificates.get(node)?.last()?;
        Some(CertificateView {
            node: *node,
            name: record.name.clone(),
            role: record.role,
            serial: newest.serial,
            not_after: newest.not_after,
            authority: short(newest.authority),
            revoked: known.revoked.contains_key(&newest.serial),
        })
    });
    Ok(CertificatesView {
        lifetime_days: known.lifetime_days,
        authorities: authorities.collect(),
        gossip: known.gossip.iter().map(|key| key.number).collect(),
        nodes: nodes.collect(),
    })
}

/// What a worker says that is asked for it.
pub(crate) fn not_here(state: &State) -> Problem {
    let there =
        state.nodes.values().filter(|record| record.role == NodeRole::Controller && record.standing == Standing::Up);
    let names: Vec<String> = there.take(3).map(|record| format!("`{}`", record.name)).collect();
    let problem = Problem::new(Code::Forbidden, "this node is a worker: only controllers say who may come in");
    match names.is_empty() {
        true => problem,
        false => problem.help(format!("use the command on a controller: {}", names.join(", "))),
    }
}
