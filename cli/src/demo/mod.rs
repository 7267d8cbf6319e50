//! later
pub(crate) async fn run(_args: crate::args::DemoArgs) -> anyhow::Result<crate::exit::Exit> {
    anyhow::bail!("later")
}
