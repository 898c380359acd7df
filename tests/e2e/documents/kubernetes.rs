//! The manifests of packaging/kubernetes: they are YAML, fit each other, and ask for no right beyond what they explain.

use std::process::Command;

use rpxy_l4_tests::{peers::programs, topology::Topology};
use serde_json::Value;

use crate::support::strictly_valid;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/kubernetes/");

/// The documents in a file, as Python's reader of YAML understands them.
#[track_caller]
fn documents(file: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let text = programs::text(Command::new("python3").args(["-c", script, &format!("{FOLDER}{file}")]));
    serde_json::from_str(&text).unwrap()
}

/// The pod of a workload, and its only container.
fn pod(workload: &Value) -> (&Value, &Value) {
    let pod = &workload["spec"]["template"]["spec"];
    assert_eq!(pod["containers"].as_array().map(Vec::len), Some(1));
    (pod, &pod["containers"][0])
}

#[test]
fn the_configuration_is_valid_and_answers_the_probes() {
    let Some(net) = Topology::or_skip() else { return };
    let [map] = &documents("configmap.yaml")[..] else { panic!("one document") };
    let config = map["data"]["config.toml"].as_str().unwrap();
    strictly_valid(&net, config.to_owned());
    assert!(config.contains("metrics_listen = \"0.0.0.0:9901\"") && config.contains("listen_port = 8443"), "{config}");
    for (file, kind) in [("deployment.yaml", "Deployment"), ("daemonset.yaml", "DaemonSet")] {
        let all = documents(file);
        assert_eq!(all[0]["kind"], kind, "{file}");
        assert_eq!(
            all[0]["spec"]["selector"]["matchLabels"], all[0]["spec"]["template"]["metadata"]["labels"],
            "{file}"
        );
        let (pod, container) = pod(&all[0]);
        let port = |name: &str| {
            let ports = container["ports"].as_array().unwrap();
            ports.iter().find(|port| port["name"] == name).map(|port| port["containerPort"].clone())
        };
        assert_eq!(port("metrics"), Some(9901.into()), "{file}");
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            let asked = &container[probe]["httpGet"];
            assert_eq!((&asked["path"], &asked["port"]), (&path.into(), &"metrics".into()), "{file}: {probe}");
        }
        let drain = config.lines().find_map(|line| line.strip_prefix("drain_timeout = \"")?.strip_suffix("s\""));
        let [drain, grace] = [drain.unwrap().parse().unwrap(), pod["terminationGracePeriodSeconds"].as_u64().unwrap()];
        assert!(grace > drain + 5, "{file}: killed after {grace} s in a drain of {drain} s");
        // The files that the entry point of the image looks for, and the map's name.
        let mounted: Vec<_> = container["volumeMounts"].as_array().unwrap().iter().map(|at| &at["mountPath"]).collect();
        assert_eq!(mounted, ["/etc/rpxy-l4", "/run/rpxy-l4"], "{file}");
        assert_eq!(pod["volumes"][0]["configMap"]["name"], map["metadata"]["name"], "{file}");
    }
    let service = &documents("deployment.yaml")[1];
    let (kind, policy) = (&service["kind"], &service["spec"]["externalTrafficPolicy"]);
    assert_eq!((kind, policy), (&"Service".into(), &"Local".into()));
}

#[test]
fn containers_have_the_rights_that_are_explained_and_no_others() {
    let rows = [
        ("deployment.yaml", Value::Null, 65532),
        ("daemonset.yaml", serde_json::json!(["NET_BIND_SERVICE", "NET_ADMIN", "BPF", "PERFMON"]), 0),
    ];
    for (file, added, user) in rows {
        let all = documents(file);
        let (pod, container) = pod(&all[0]);
        let rights = &container["securityContext"];
        assert_eq!(rights["capabilities"]["drop"], serde_json::json!(["ALL"]), "{file}");
        assert_eq!(rights["capabilities"]["add"], added, "{file}");
        assert_eq!(
            (&rights["allowPrivilegeEscalation"], &rights["readOnlyRootFilesystem"]),
            (&false.into(), &true.into())
        );
        let runs_as = [rights, &pod["securityContext"]].into_iter().find_map(|of| of["runAsUser"].as_u64());
        assert_eq!(runs_as, Some(user), "{file}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{file}");
    }
}
