//! A scenario's own part of the cluster: a namespace, the pods and Services that it makes there, and where
//! they can be reached and looked from.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::api::{Api, collection};
use crate::lab::{Lab, Outcome, poll};

/// A namespace of the cluster, deleted with all that is in it when the scenario ends.
pub(crate) struct Case<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) api: Api,
    pub(crate) namespace: String,
}

/// A pod that runs.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its name, which is its host name.
    pub(crate) name: String,
    /// Its network namespace.
    pub(crate) netns: String,
    /// Its addresses, IPv4 first.
    pub(crate) ips: Vec<IpAddr>,
}

/// A Service as the API server completed it.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) object: Value,
    /// Its ClusterIPs, in the order of its families.
    pub(crate) ips: Vec<IpAddr>,
}

impl Service {
    fn new(object: Value) -> Service {
        let list = object["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
        let ips = list.iter().filter_map(|ip| ip.as_str()?.parse().ok()).collect();
        Service { object, ips }
    }

    /// Its ClusterIPs at a port.
    pub(crate) fn at(&self, port: u16) -> Vec<SocketAddr> {
        self.ips.iter().map(|&ip| SocketAddr::new(ip, port)).collect()
    }

    /// The node port of its port of that position.
    pub(crate) fn node_port(&self, position: usize) -> u16 {
        number(&self.object["spec"]["ports"][position]["nodePort"])
    }
}

/// A number as a port; 0 when it is none.
pub(crate) fn number(value: &Value) -> u16 {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).unwrap_or_default()
}

/// An echo server to be started as a pod. It serves HTTP and UDP on 8080 and is labelled `app: server`.
pub(crate) struct Echo(Value);

/// An echo server of that name.
pub(crate) fn echo(name: &str) -> Echo {
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1});
    let container = json!({"name": "echo", "image": "weft/echo", "args": ["--port", "8080"], "readinessProbe": probe,
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "datagrams", "containerPort": 8080, "protocol": "UDP"}]});
    Echo(json!({"metadata": {"name": name, "labels": {"app": "server"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}))
}

impl Echo {
    /// On that node.
    pub(crate) fn on(mut self, node: &str) -> Echo {
        self.0["spec"]["nodeName"] = json!(node);
        self
    }

    /// With another label `app`.
    pub(crate) fn app(mut self, app: &str) -> Echo {
        self.0["metadata"]["labels"]["app"] = json!(app);
        self
    }

    /// With these labels in the place of its own.
    pub(crate) fn labels(mut self, labels: Value) -> Echo {
        self.0["metadata"]["labels"] = labels;
        self
    }

    /// On another port, for servers on the network of their node too.
    pub(crate) fn port(mut self, port: u16) -> Echo {
        let container = &mut self.0["spec"]["containers"][0];
        container["args"][1] = json!(port.to_string());
        container["readinessProbe"]["httpGet"]["port"] = json!(port);
        for position in 0..2 {
            container["ports"][position]["containerPort"] = json!(port);
        }
        self
    }

    /// On the network of its node.
    pub(crate) fn host_network(mut self) -> Echo {
        self.0["spec"]["hostNetwork"] = json!(true);
        self
    }

    /// With datagrams at these addresses only, so that answers come from the address that was asked.
    pub(crate) fn udp_at(mut self, addresses: &[SocketAddr]) -> Echo {
        let ips: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
        let arguments = self.0["spec"]["containers"][0]["args"].as_array_mut().expect("a list just above");
        arguments.extend([json!("--udp-listen-addresses"), json!(ips.join(","))]);
        self
    }

    /// Serving on for so many seconds after its deletion.
    pub(crate) fn lingering(mut self, seconds: u32) -> Echo {
        self.0["spec"]["terminationGracePeriodSeconds"] = json!(seconds + 5);
        let arguments = self.0["spec"]["containers"][0]["args"].as_array_mut().expect("a list just above");
        arguments.extend([json!("--delay-shutdown"), json!(seconds.to_string())]);
        self
    }

    /// Ready only while that file is there.
    pub(crate) fn ready_while(mut self, file: &std::path::Path) -> Echo {
        let command = json!({"command": ["test", "-e", file]});
        self.0["spec"]["containers"][0]["readinessProbe"] =
            json!({"exec": command, "periodSeconds": 1, "failureThreshold": 1});
        self
    }

    /// With these fields of the spec.
    pub(crate) fn spec(mut self, fields: Value) -> Echo {
        for (field, value) in fields.as_object().into_iter().flatten() {
            self.0["spec"][field] = value.clone();
        }
        self
    }

    /// With these ports in the place of its own.
    pub(crate) fn ports(mut self, ports: Value) -> Echo {
        self.0["spec"]["containers"][0]["ports"] = ports;
        self
    }
}

impl<'a> Case<'a> {
    /// A new namespace of that name.
    pub(crate) fn new(lab: &'a Lab, namespace: &str) -> Result<Case<'a>, String> {
        let api = lab.api()?;
        api.create(
            "/api/v1/namespaces",
            &json!({"metadata": {"name": namespace, "labels": {"scenario": "yes"}}}),
        )?;
        Ok(Case { lab, api, namespace: namespace.to_owned() })
    }

    /// Gives the namespace labels.
    pub(crate) fn label_namespace(&self, labels: Value) -> Outcome {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        self.api.patch(&path, &json!({"metadata": {"labels": labels}})).map(drop)
    }

    fn path(&self, plural: &str, name: &str) -> String {
        format!("{}/{name}", collection(&self.namespace, plural))
    }

    pub(crate) fn create(&self, plural: &str, object: &Value) -> Result<Value, String> {
        self.api.create(&collection(&self.namespace, plural), object)
    }

    pub(crate) fn list(&self, plural: &str) -> Result<Vec<Value>, String> {
        let list = self.api.get(&collection(&self.namespace, plural))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    pub(crate) fn get(&self, plural: &str, name: &str) -> Result<Value, String> {
        self.api.get(&self.path(plural, name))
    }

    pub(crate) fn patch(&self, plural: &str, name: &str, patch: &Value) -> Result<Value, String> {
        self.api.patch(&self.path(plural, name), patch)
    }

    pub(crate) fn delete(&self, plural: &str, name: &str) -> Outcome {
        self.api.delete(&self.path(plural, name)).map(drop)
    }

    /// Starts a pod.
    pub(crate) fn start(&self, pod: Echo) -> Outcome {
        self.create("pods", &pod.0).map(drop)
    }

    /// Starts pods and waits until all of them are ready.
    pub(crate) fn run<const N: usize>(&self, pods: [Echo; N]) -> Result<[Peer; N], String> {
        let names =
            pods.each_ref().map(|pod| pod.0["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        for pod in pods {
            self.start(pod)?;
        }
        let peers: Vec<Peer> = names.iter().map(|name| self.ready(name)).collect::<Result<_, _>>()?;
        peers.try_into().map_err(|_| "one peer for each pod".to_owned())
    }

    /// Waits until a pod is ready.
    pub(crate) fn ready(&self, name: &str) -> Result<Peer, String> {
        self.with_condition(name, "True")
    }

    /// Waits until a pod has an address, and is ready or not as given.
    pub(crate) fn with_condition(&self, name: &str, ready: &str) -> Result<Peer, String> {
        poll(&format!("pod {}/{name} with Ready {ready}", self.namespace), || {
            let pod = self.get("pods", name)?;
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_so = |one: &Value| one["type"] == "Ready" && one["status"] == ready;
            match conditions.iter().any(is_so) && pod["status"]["podIP"].is_string() {
                true => Ok(self.peer(&pod)),
                false => Err(pod["status"].to_string()),
            }
        })
    }

    fn peer(&self, pod: &Value) -> Peer {
        let ips = pod["status"]["podIPs"].as_array().cloned().unwrap_or_default();
        let netns = match pod["spec"]["hostNetwork"] == true {
            true => self.lab.name.node(pod["spec"]["nodeName"].as_str().unwrap_or_default()),
            false => self.lab.name.pod(pod["metadata"]["uid"].as_str().unwrap_or_default()),
        };
        Peer {
            name: pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            netns,
            ips: ips.iter().filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect(),
        }
    }

    /// Creates a Service of both families that selects `app: server`, port 80 to 8080, unless the spec says
    /// otherwise.
    pub(crate) fn service(&self, name: &str, spec: Value) -> Result<Service, String> {
        self.service_with(name, json!({}), spec)
    }

    /// As [`Case::service`], with labels.
    pub(crate) fn service_with(&self, name: &str, labels: Value, spec: Value) -> Result<Service, String> {
        let mut whole = json!({"selector": {"app": "server"}, "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"}]});
        for (field, value) in spec.as_object().into_iter().flatten() {
            whole[field] = value.clone();
        }
        let object = json!({"metadata": {"name": name, "labels": labels}, "spec": whole});
        self.create("services", &object).map(Service::new)
    }

    /// Changes a Service's spec.
    pub(crate) fn change(&self, name: &str, spec: Value) -> Result<Service, String> {
        self.patch("services", name, &json!({"spec": spec})).map(Service::new)
    }

    /// Gives a Service addresses of a load balancer, as a cloud provider does.
    pub(crate) fn balance(&self, name: &str, ingress: Value) -> Outcome {
        let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        self.api.patch(&format!("{}/status", self.path("services", name)), &status).map(drop)
    }
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        // The scenario's own outcome matters more; what stays is found by the last scenario.
        let _ = self.api.delete(&format!("/api/v1/namespaces/{}", self.namespace));
    }
}
