# The configuration of docs/jupyterhub.md, for a test: users are whoever knows the password, and their servers are processes of one
# system user. What run.py chose comes by the environment.
import os
import sys

given = os.environ
out = given["OUT"]

# --- the gateway as external proxy
c.JupyterHub.proxy_class = "configurable-http-proxy"
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = given["API"]
c.ConfigurableHTTPProxy.auth_token = given["CONFIGPROXY_AUTH_TOKEN"]
c.JupyterHub.public_url = given["PUBLIC"]
c.JupyterHub.hub_bind_url = given["HUB"]

# --- of the test
c.JupyterHub.last_activity_interval = 2
c.JupyterHub.db_url = f"sqlite:///{out}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{out}/cookie-secret"
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = given["PASSWORD"]
c.SharedPasswordAuthenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = f"{out}/homes/{{username}}"
c.Spawner.cmd = [os.path.join(os.path.dirname(sys.executable), "jupyterhub-singleuser")]
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/lab/tree/a.ipynb"
c.Spawner.http_timeout = c.Spawner.start_timeout = 60
c.JupyterHub.services = [{
    "name": "idle-culler",
    "command": [sys.executable, "-m", "jupyterhub_idle_culler", f"--timeout={given['IDLE']}", "--cull-every=3"],
}]
c.JupyterHub.load_roles = [{
    "name": "idle-culler",
    "services": ["idle-culler"],
    "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
}]
