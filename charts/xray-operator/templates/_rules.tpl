{{/*
A rules file of Prometheus. docs/alerts.md is its reference. [[ ]] is what Prometheus puts in when an alert fires.

Gauges are read through max by (...): the labels of the operator's pod would make another alert of each of its restarts, and
a Prometheus that scrapes it twice would find two series for one.
*/}}
{{- define "xray-operator.rules" -}}
{{- $rule := .Values.metrics.prometheusRule -}}
{{- $operator := printf "namespace=%q" .Release.Namespace -}}
{{- $rules := include "xray-operator.rulesOf" (list $rule $operator .Release.Namespace) -}}
{{- $rules | replace "[[" "{{" | replace "]]" "}}" -}}
{{- end -}}

{{/* Arguments: values, selector of the operator's own series, its namespace. */}}
{{- define "xray-operator.rulesOf" -}}
{{- $rule := index . 0 -}}
{{- $operator := index . 1 -}}
{{- $namespace := index . 2 -}}
groups:
  - name: xray-training-records
    rules:
      - record: namespace_flavor_currency:xray_training_cost:increase1h
        expr: sum by (namespace, flavor, currency) (increase(xray_training_cost_total[1h]))
      - record: namespace_flavor_currency:xray_training_lost_cost:increase1h
        expr: sum by (namespace, flavor, currency) (increase(xray_training_lost_cost_total[1h]))
      - record: phase_flavor:xray_training_phase_duration_seconds:p90_7d
        expr: histogram_quantile(0.9, sum by (le, phase, flavor) (increase(xray_training_phase_duration_seconds_bucket[7d])))
      - record: namespace_name_currency:xray_training_budget_left:ratio
        expr: |-
          min by (namespace, name, currency) (xray_training_budget_left)
            / max by (namespace, name, currency) (xray_training_budget_limit)
      - record: namespace_name_currency:xray_training_namespace_budget_left:ratio
        expr: |-
          min by (namespace, name, currency) (xray_training_namespace_budget_left)
            / max by (namespace, name, currency) (xray_training_namespace_budget_limit)
  - name: xray-training-runs
    rules:
      - alert: XRayRunStalled
        expr: max by (namespace, name) (xray_training_stalled) == 1
        labels: {severity: critical}
        annotations:
          summary: Run [[ $labels.namespace ]]/[[ $labels.name ]] makes no progress.
          description: No step and no image for longer than its limits.noProgressSeconds or firstStepSeconds allow. What it holds is paid for.
          runbook_url: {{ $rule.runbookUrl | replace "{alert}" "XRayRunStalled" }}
      - alert: XRayBudgetNearlySpent
        # of runs that go on: the gauge of stalls is there for them alone
        expr: |-
          namespace_name_currency:xray_training_budget_left:ratio
            and on (namespace, name, currency) xray_training_budget_warning == 1
            and on (namespace, name) xray_training_stalled
        labels: {severity: warning, budget: run}
        annotations:
          summary: Run [[ $labels.namespace ]]/[[ $labels.name ]] has [[ $value | humanizePercentage ]] of its budget left.
          description: What happens at the limit is in its spec.budget.onExceed.
          runbook_url: {{ $rule.runbookUrl | replace "{alert}" "XRayBudgetNearlySpent" }}
      - alert: XRayBudgetNearlySpent
        expr: |-
          namespace_name_currency:xray_training_namespace_budget_left:ratio
            and on (namespace, name, currency) xray_training_namespace_budget_warning == 1
        labels: {severity: warning, budget: namespace}
        annotations:
          summary: Namespace [[ $labels.namespace ]] has [[ $value | humanizePercentage ]] of this month's TrainingBudget [[ $labels.name ]] left.
          description: What happens at the limit is in its spec.onExceed.
          runbook_url: {{ $rule.runbookUrl | replace "{alert}" "XRayBudgetNearlySpent" }}
      - alert: XRayCheckpointTooOld
        expr: max by (namespace, name) (xray_training_checkpoint_age_seconds) > {{ $rule.checkpointAgeSeconds }}
        labels: {severity: warning, checkpoint: old}
        annotations:
          summary: The newest checkpoint of run [[ $labels.namespace ]]/[[ $labels.name ]] is [[ $value | humanizeDuration ]] old.
          description: An interruption now would lose that time, and the money for it.
          runbook_url: {{ $rule.runbookUrl | replace "{alert}" "XRayCheckpointTooOld" }}
      - alert: XRayCheckpointTooOld
        expr: |-
          max by (namespace, name) (xray_training_images_per_second)
            unless on (namespace, name) xray_training_checkpoint_age_seconds
        for: {{ $rule.checkpointAgeSeconds }}s
        labels: {severity: warning, checkpoint: none}
        annotations:
          summary: Run [[ $labels.namespace ]]/[[ $labels.name ]] has no checkpoint yet.
          description: It has trained for {{ $rule.checkpointAgeSeconds }} s. An interruption now would lose all of it, and the money for it.
          runbook_url: {{ $rule.runbookUrl | replace "{alert}" "XRayCheckpointTooOld" }}
      - alert: XRayPreparationFailing
        expr: max by (namespace, name) (xray_training_preparation_failures) >= {{ $rule.preparationFailures }}
        labels: {severity: warning}
        annotations:
          summary: The preparation of job [[ $labels.namespace ]]/[[ $labels.name ]] has failed [[ $value ]] times.
          description: The third failure is the last, and ends the job.
          runbook_url: {{ $rule.runbookUrl | replace "{alert}" "XRayPreparationFailing" }}
      - alert: XRayQueueTooLong
        expr: max by (namespace, name) (xray_training_queue_age_seconds) > {{ $rule.queueAgeSeconds }}
        labels: {severity: warning}
        annotations:
          summary: Job [[ $labels.namespace ]]/[[ $labels.name ]] has waited for [[ $value | humanizeDuration ]].
          description: Its flavor is taken, missing or full, or its namespace's month is spent. Waiting costs nothing.
          runbook_url: {{ $rule.runbookUrl | replace "{alert}" "XRayQueueTooLong" }}
      - alert: XRayPriceMissing
        expr: count by (flavor) (max by (namespace, name, flavor) (xray_training_unpriced) == 1)
        for: {{ $rule.priceMissingFor }}
        labels: {severity: warning}
        annotations:
          summary: Runs pay for flavor [[ $labels.flavor ]], which has no price ([[ $value ]] of them).
          description: What it costs is counted nowhere, and no budget holds it.
          runbook_url: {{ $rule.runbookUrl | replace "{alert}" "XRayPriceMissing" }}
  - name: xray-training-operator
    rules:
      - alert: XRayOperatorBacklog
        expr: max by (namespace) (xray_training_queue_length{ {{- $operator -}} }) > {{ $rule.backlogJobs }}
        for: {{ $rule.backlogFor }}
        labels: {severity: warning}
        annotations:
          summary: The operator in namespace [[ $labels.namespace ]] has [[ $value ]] jobs that wait to be looked at.
          description: New jobs start late, and status is behind. Runs that go on are not touched by it.
          runbook_url: {{ $rule.runbookUrl | replace "{alert}" "XRayOperatorBacklog" }}
      - alert: XRayOperatorDown
        expr: absent(xray_training_build_info{ {{- $operator -}} })
        for: {{ $rule.operatorDownFor }}
        labels: {severity: critical}
        annotations:
          summary: Nothing is heard of the operator in namespace {{ $namespace }}.
          description: Runs go on and end by themselves; nothing is started, counted or stopped by a budget meanwhile.
          runbook_url: {{ $rule.runbookUrl | replace "{alert}" "XRayOperatorDown" }}
{{- end -}}
