//! What concerns the process: restart, memory, storage, files beside the working directory.

use super::*;

#[test]
fn the_process_is_restarted_after_the_answer() {
    run(async {
        let rig = Rig::new(Options::default());
        let body = "{\"path\":\"\",\"payload\":\"\"}";
        rig.check("POST", "/restart", body, (200, "{\"status\":\"ok\"}\n"))
            .await;
        rig.check("POST", "/restart/", "", (200, "{\"status\":\"ok\"}\n"))
            .await;
        rig.check("GET", "/restart", "", (405, "")).await;
        rig.check("PUT", "/debug/gc", "", (200, "")).await;
        rig.check("POST", "/configs/geo", body, (204, "")).await;
        rig.check("POST", "/upgrade/geo", "", (204, "")).await;
        let calls = rig.control.calls();
        assert_eq!(
            calls,
            ["restart", "restart", "collect", "update geo", "update geo"]
        );
    });
}

#[test]
fn dashboards_keep_what_they_like_under_a_key() {
    run(async {
        let rig = Rig::new(Options::default());
        rig.check("GET", "/storage/zashboard", "", (200, "null\n"))
            .await;
        rig.check("PUT", "/storage/zashboard", "{\"a\": [1]}", (204, ""))
            .await;
        rig.check("GET", "/storage/zashboard", "", (200, "{\"a\": [1]}"))
            .await;
        rig.check("DELETE", "/storage/zashboard", "", (204, ""))
            .await;
        rig.check("DELETE", "/storage/zashboard", "", (204, ""))
            .await;
        let invalid = error("Body invalid");
        rig.check("PUT", "/storage/x", "{", (400, &invalid)).await;
        rig.check("PUT", "/storage/x", "", (400, &invalid)).await;
        let large = format!("\"{}\"", "x".repeat(1 << 20));
        let exceeds = error("payload exceeds 1MB limit");
        rig.check("PUT", "/storage/x", &large, (413, &exceeds))
            .await;
        rig.check("GET", "/storage/x", "", (200, "null\n")).await;
    });
}

#[test]
fn a_safe_path_may_hold_configurations_too() {
    run(async {
        let rig = Rig::new(Options::default());
        let safe = &rig.control.safe_paths[0];
        std::fs::create_dir(safe).unwrap();
        let file = safe.join("other.yaml");
        std::fs::write(&file, "mode: direct").unwrap();
        let body = serde_json::json!({ "path": file }).to_string();
        rig.check("PUT", "/configs", &body, (204, "")).await;
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
        let (status, answer) = rig.ask("PUT", "/configs", &body).await;
        std::fs::remove_dir_all(safe).unwrap();
        assert_eq!(status, 400, "{answer}");
        assert_eq!(rig.control.calls().len(), 1);
    });
}
