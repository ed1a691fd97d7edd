{{- define "gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "gateway.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "gateway.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "gateway.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "gateway.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "gateway.configMap" -}}
{{- default (printf "%s-routes" (include "gateway.fullname" .)) .Values.existingConfigMap -}}
{{- end -}}

{{- define "gateway.data" -}}
/var/lib/open-model-gateway
{{- end -}}

{{/* routes.yaml, with stores on the volume where it names none. */}}
{{- define "gateway.routes" -}}
{{- $written := fromYaml .Values.routes -}}
{{- if hasKey $written "Error" -}}
{{- fail (printf "`routes` is not YAML: %s" (get $written "Error")) -}}
{{- end -}}
{{- .Values.routes | trimSuffix "\n" }}
{{- if not (hasKey $written "stores") }}
stores: # by the chart: on the volume
  ledger: "sqlite:///{{ include "gateway.data" . }}/gateway.db"
  counters: "sqlite:///{{ include "gateway.data" . }}/gateway.db"
  cache: "sqlite:///{{ include "gateway.data" . }}/gateway-cache.db"
{{- end }}
{{- end -}}

{{/* Refuses what cannot work. */}}
{{- define "gateway.check" -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) -}}
{{- $sqlite := list -}}
{{- if not .Values.existingConfigMap -}}
  {{- $filled := fromYaml (include "gateway.routes" .) -}}
  {{- if not (hasKey (fromYaml .Values.routes) "version") -}}
    {{- fail "`routes` has no `version: 1`: it is to be a whole routes.yaml, for example by --set-file routes=routes.yaml" -}}
  {{- end -}}
  {{- if not (hasKey $filled "stores") -}}
    {{- fail (printf "`routes` names no `stores:`, and the chart cannot add them below what is indented, in braces or ended by `...`: say there `stores: {ledger: \"sqlite:///%[1]s/gateway.db\", counters: \"sqlite:///%[1]s/gateway.db\", cache: \"sqlite:///%[1]s/gateway-cache.db\"}`" (include "gateway.data" .)) -}}
  {{- end -}}
  {{- $stores := get $filled "stores" | default dict -}}
  {{- range $name, $file := dict "ledger" "gateway.db" "counters" "gateway.db" "cache" "gateway-cache.db" -}}
    {{- $dsn := get $stores $name | default (printf "sqlite:///%s" $file) -}}
    {{- if hasPrefix "sqlite:" $dsn -}}
      {{- if not (hasPrefix (printf "sqlite:///%s/" (include "gateway.data" $)) $dsn) -}}
        {{- fail (printf "`routes` keeps its %s at %s, but a pod can write only to %s: say `stores: {%s: \"sqlite:///%s/%s\"}`, or leave `stores:` out" $name $dsn (include "gateway.data" $) $name (include "gateway.data" $) $file) -}}
      {{- end -}}
      {{- if ne $name "cache" -}}
        {{- $sqlite = append $sqlite $name -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.sharedStore .Values.existingConfigMap -}}
  {{- fail (printf "sharedStore is true, but nobody here can see which stores the ConfigMap %s names, and where it names none they are SQLite, a file that belongs to one pod: a budget could be spent once by every pod, and the ledger would have no volume. Put that routes.yaml into `routes` (--set-file routes=routes.yaml), where its stores are checked, or leave sharedStore out" .Values.existingConfigMap) -}}
{{- end -}}
{{- if or (and $several (not .Values.sharedStore)) (and .Values.sharedStore $sqlite) -}}
  {{- $asked := "sharedStore is true" -}}
  {{- if .Values.autoscaling.enabled -}}
    {{- $asked = "autoscaling is enabled" -}}
  {{- else if $several -}}
    {{- $asked = printf "replicaCount is %d" (int .Values.replicaCount) -}}
  {{- end -}}
  {{- fail (printf "%s, but ledger and budgets are in SQLite, a file that belongs to one pod: with more, each would have a ledger of its own, and a budget could be spent once by every pod. Keep replicaCount: 1 and use more `workers`, or name stores that pods share in `routes` (stores.ledger, stores.counters) and set sharedStore: true" $asked) -}}
{{- end -}}
{{- range .Values.extraArgs -}}
  {{- if regexMatch "^--(config|listen|ops-listen|workers|drain-delay|drain-timeout|log-format)(=|$)" . -}}
    {{- fail (printf "extraArgs has %s, which probes, Services and the grace period go by: say it by the chart's own value (listenHost, workers, drain, logFormat)" .) -}}
  {{- end -}}
{{- end -}}
{{- $drain := add .Values.drain.preStopSeconds .Values.drain.delaySeconds .Values.drain.timeoutSeconds -}}
{{- if and .Values.terminationGracePeriodSeconds (lt (int .Values.terminationGracePeriodSeconds) (int (add $drain 10))) -}}
  {{- fail (printf "terminationGracePeriodSeconds is %d, but the drain takes up to %d s and the gateway some more to end: at least %d, or leave it out" (int .Values.terminationGracePeriodSeconds) (int $drain) (int (add $drain 10))) -}}
{{- end -}}
{{- end -}}
