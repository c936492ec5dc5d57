"""A small manifest with all kinds of jobs/adainf.yaml."""

SKETCH = """\
apiVersion: v1
kind: ServiceAccount
metadata: {name: adainf-controller, labels: {app.kubernetes.io/name: adainf}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: adainf-stage}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: adainf-controller}
rules:
  - {apiGroups: [batch], resources: [jobs], verbs: [get, list, watch, create, patch]}
  - {apiGroups: [batch], resources: [cronjobs], resourceNames: [adainf-pretrain], verbs: [get]}
  - {apiGroups: [""], resources: [pods], verbs: [list, watch]}
  - {apiGroups: [events.k8s.io], resources: [events], verbs: [create, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: adainf-controller}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: adainf-controller}
subjects: [{kind: ServiceAccount, name: adainf-controller}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: adainf-recipe}
data: {recipe.yaml: "name: tiny\\n"}
---
apiVersion: v1
kind: Service
metadata: {name: adainf-workers}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app.kubernetes.io/name: adainf, adainf.dev/gang: workers}
  ports: [{name: rendezvous, port: 29500, protocol: TCP}, {name: progress, port: 8080, protocol: TCP}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: adainf-pretrain, labels: {app.kubernetes.io/name: adainf}, annotations: {adainf.dev/after: generate}}
spec:
  schedule: "0 0 31 2 *"
  suspend: true
  jobTemplate:
    metadata: {labels: {app.kubernetes.io/name: adainf, adainf.dev/stage: pretrain}}
    spec:
      completionMode: Indexed
      completions: 2
      parallelism: 2
      backoffLimit: 0
      podReplacementPolicy: Failed
      activeDeadlineSeconds: 259200
      successPolicy: {rules: [{succeededIndexes: "0"}]}
      podFailurePolicy:
        rules:
          - {action: FailJob, onPodConditions: [{type: DisruptionTarget, status: "True"}]}
          - {action: FailJob, onExitCodes: {containerName: pretrain, operator: In, values: [75]}}
      template:
        metadata: {labels: {app.kubernetes.io/name: adainf, adainf.dev/gang: workers}}
        spec:
          restartPolicy: Never
          subdomain: adainf-workers
          serviceAccountName: adainf-stage
          terminationGracePeriodSeconds: 300
          containers:
            - name: pretrain
              image: adainf-train:1
              command: [tini, --, python, -m, adainf.kubernetes.launcher]
              env: [{name: ADAINF_NNODES, value: "2"}]
              resources: {requests: {cpu: "8", memory: 64Gi}, limits: {memory: 64Gi, nvidia.com/gpu: "8"}}
              volumeMounts: [{name: shm, mountPath: /dev/shm}]
          volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 16Gi}}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: adainf, labels: {app.kubernetes.io/name: adainf}}
spec:
  backoffLimit: 20
  podReplacementPolicy: Failed
  podFailurePolicy:
    rules:
      - {action: FailJob, onExitCodes: {containerName: controller, operator: In, values: [64, 65]}}
      - {action: Ignore, onPodConditions: [{type: DisruptionTarget, status: "True"}]}
  template:
    metadata: {labels: {app.kubernetes.io/name: adainf}}
    spec:
      restartPolicy: Never
      serviceAccountName: adainf-controller
      containers:
        - name: controller
          image: adainf-controller:1
          command: [tini, --, python, -m, adainf.kubernetes.controller]
          env: [{name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}]
          resources: {requests: {cpu: 50m, memory: 128Mi}, limits: {memory: 256Mi}}
"""
